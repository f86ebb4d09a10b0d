-- As before, and hours sum up guesses too.
CREATE OR REPLACE FUNCTION settle(_rows jsonb) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  PERFORM 1 FROM wallet w
    WHERE w.tenant_id IN (SELECT (x ->> 'tenant_id')::uuid FROM jsonb_array_elements(_rows) x)
    ORDER BY w.tenant_id FOR UPDATE;

  RETURN QUERY WITH
  item AS (
    SELECT DISTINCT ON (x.tenant_id, x.request_id) x.* FROM jsonb_to_recordset(_rows) AS x (
      tenant_id uuid, request_id uuid, epoch uuid, key_id uuid, base_model_id uuid, adapter_id uuid,
      adapter_version_id uuid, model text, price_id uuid, prompt bigint, cached bigint, completion bigint,
      drafted bigint, accepted bigint, nano bigint, outcome text, admitted_at timestamptz)
    ORDER BY x.tenant_id, x.request_id),
  won AS (
    INSERT INTO request AS q (tenant_id, id, epoch, key_id, base_model_id, adapter_id, adapter_version_id, model,
                              price_id, reserved_nano, state, admitted_at, settled_at)
      SELECT i.tenant_id, i.request_id, i.epoch, i.key_id, i.base_model_id, i.adapter_id, i.adapter_version_id, i.model,
             i.price_id, 0, 'settled', i.admitted_at, now() FROM item i ORDER BY i.tenant_id, i.request_id
      ON CONFLICT (tenant_id, id) DO UPDATE SET state = 'settled', settled_at = now() WHERE q.state = 'admitted'
      RETURNING q.tenant_id, q.id),
  event AS (
    INSERT INTO usage_event (tenant_id, request_id, key_id, base_model_id, adapter_id, adapter_version_id, model,
                             price_id, prompt, cached, completion, drafted, accepted, nano, outcome, admitted_at,
                             occurred_at)
      SELECT i.tenant_id, i.request_id, i.key_id, i.base_model_id, i.adapter_id, i.adapter_version_id, i.model,
             i.price_id, i.prompt, i.cached, i.completion, i.drafted, i.accepted, i.nano, i.outcome, i.admitted_at, now()
      FROM item i JOIN won ON won.tenant_id = i.tenant_id AND won.id = i.request_id
      RETURNING *),
  rolled AS (
    INSERT INTO usage_hour AS u (tenant_id, hour, key_id, base_model_id, adapter_id, adapter_version_id,
                                 requests, prompt, cached, completion, drafted, accepted, nano)
      SELECT e.tenant_id, date_trunc('hour', e.occurred_at, 'UTC'), e.key_id, e.base_model_id, e.adapter_id,
             e.adapter_version_id, count(*), sum(e.prompt), sum(e.cached), sum(e.completion), sum(e.drafted),
             sum(e.accepted), sum(e.nano)
      FROM event e GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
      ON CONFLICT ON CONSTRAINT usage_hour_key DO UPDATE SET
        requests = u.requests + excluded.requests, prompt = u.prompt + excluded.prompt,
        cached = u.cached + excluded.cached, completion = u.completion + excluded.completion,
        drafted = u.drafted + excluded.drafted, accepted = u.accepted + excluded.accepted,
        nano = u.nano + excluded.nano),
  spent AS (
    INSERT INTO spend AS s (tenant_id, scope_id, period, nano)
      SELECT e.tenant_id, scope.id, period.start, sum(e.nano) FROM event e
        CROSS JOIN LATERAL (VALUES (e.tenant_id), (e.key_id)) AS scope (id)
        CROSS JOIN LATERAL (VALUES ('-infinity'::date),
                                   (date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date)) AS period (start)
      GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
      ON CONFLICT (tenant_id, scope_id, period) DO UPDATE SET nano = s.nano + excluded.nano),
  charged AS (
    UPDATE wallet w SET balance_nano = w.balance_nano - t.nano, seq = w.seq + t.events
      FROM (SELECT e.tenant_id, sum(e.nano)::bigint AS nano, count(*) AS events FROM event e GROUP BY 1) t
      WHERE w.tenant_id = t.tenant_id
      RETURNING w.tenant_id, w.balance_nano + t.nano AS balance_before, w.seq - t.events AS seq_before),
  entered AS (
    INSERT INTO wallet_entry (tenant_id, seq, kind, nano, balance_after, request_id)
      SELECT e.tenant_id, c.seq_before + row_number() OVER one, 'usage', -e.nano,
             c.balance_before - sum(e.nano) OVER one, e.request_id
      FROM event e JOIN charged c ON c.tenant_id = e.tenant_id
      WINDOW one AS (PARTITION BY e.tenant_id ORDER BY e.request_id))
  SELECT won.id FROM won;
END $$;
