-- As before, and what is reserved covers as many rejected guesses as the engine may charge for.
DROP FUNCTION admit(uuid, uuid, uuid, uuid, uuid, uuid, uuid, text, bigint, bigint);
CREATE FUNCTION admit(_tenant uuid, _key uuid, _id uuid, _epoch uuid, _base uuid, _adapter uuid, _version uuid,
                      _model text, _prompt bigint, _completion bigint, _rejected bigint)
RETURNS TABLE (decision text, scope text, retry_ms bigint, price_id uuid, prompt_nano bigint, cached_nano bigint,
               completion_nano bigint, rejected_nano bigint, reserved bigint, rate_limit bigint, rate_remaining bigint,
               budget bigint, admitted timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
  p price; q quota; at timestamptz; step interval; next_arrival timestamptz; left_now bigint;
  open_count bigint; committed numeric;
BEGIN
  PERFORM set_config('app.tenant_id', _tenant::text, true), set_config('synchronous_commit', 'off', true);
  IF NOT EXISTS (SELECT FROM node n WHERE n.epoch = _epoch AND n.seen_at > clock_timestamp() - interval '5 s') THEN
    decision := 'fenced'; RETURN NEXT; RETURN;
  END IF;

  SELECT * INTO p FROM price x WHERE x.base_model_id = _base AND x.effective_from <= clock_timestamp()
    ORDER BY x.effective_from DESC LIMIT 1;
  IF NOT FOUND THEN decision := 'unpriced'; RETURN NEXT; RETURN; END IF;
  price_id := p.id; prompt_nano := p.prompt_nano; cached_nano := p.cached_nano; completion_nano := p.completion_nano;
  rejected_nano := p.rejected_nano;
  reserved := _prompt * p.prompt_nano + _completion * p.completion_nano + _rejected * p.rejected_nano;

  IF EXISTS (SELECT FROM quota x WHERE x.tenant_id = _tenant AND x.scope_id IN (_tenant, _key)) THEN
    PERFORM 1 FROM gate g WHERE g.tenant_id = _tenant AND g.scope_id = _tenant FOR UPDATE;
    -- a retry of an admission whose commit was not heard must not be counted against itself
    IF NOT EXISTS (SELECT FROM request r WHERE r.tenant_id = _tenant AND r.id = _id) THEN
      FOR q IN SELECT * FROM quota x WHERE x.tenant_id = _tenant AND x.scope_id IN (_tenant, _key)
               ORDER BY x.scope_id = _tenant DESC LOOP
        scope := CASE WHEN q.scope_id = _tenant THEN 'tenant' ELSE 'key' END;
        at := clock_timestamp();
        IF q.requests_per_minute IS NOT NULL THEN
          step := interval '60 s' / q.requests_per_minute;
          SELECT greatest(g.arrival, at) + step INTO next_arrival FROM gate g
            WHERE g.tenant_id = _tenant AND g.scope_id = q.scope_id;
          next_arrival := coalesce(next_arrival, at + step);
          IF next_arrival - at > interval '60 s' THEN
            decision := 'rate'; rate_limit := q.requests_per_minute; rate_remaining := 0;
            retry_ms := ceil(extract(epoch FROM next_arrival - at - interval '60 s') * 1000)::bigint;
            RETURN NEXT; RETURN;
          END IF;
          left_now := floor(extract(epoch FROM interval '60 s' - (next_arrival - at)) * q.requests_per_minute / 60);
          IF rate_remaining IS NULL OR left_now < rate_remaining THEN
            rate_limit := q.requests_per_minute; rate_remaining := left_now;
          END IF;
        END IF;
        IF q.concurrency IS NOT NULL THEN
          SELECT count(*) INTO open_count FROM request r JOIN node n USING (epoch)
            WHERE r.tenant_id = _tenant AND r.state = 'admitted' AND (q.scope_id = _tenant OR r.key_id = _key)
              AND n.seen_at > at - interval '10 s';
          IF open_count >= q.concurrency THEN
            decision := 'concurrency'; retry_ms := 1000; rate_limit := q.concurrency; RETURN NEXT; RETURN;
          END IF;
        END IF;
        IF q.budget_nano IS NOT NULL THEN
          -- one statement, so that a settlement is seen either as held or as spent, never as neither
          SELECT coalesce((SELECT s.nano FROM spend s WHERE s.tenant_id = _tenant AND s.scope_id = q.scope_id
                             AND s.period = CASE q.budget_period WHEN 'month'
                               THEN date_trunc('month', at AT TIME ZONE 'UTC')::date ELSE '-infinity' END), 0)
               + coalesce((SELECT sum(r.reserved_nano) FROM request r WHERE r.tenant_id = _tenant
                             AND r.state = 'admitted' AND (q.scope_id = _tenant OR r.key_id = _key)), 0)
            INTO committed;
          IF committed + reserved > q.budget_nano THEN
            decision := 'budget'; budget := q.budget_nano; RETURN NEXT; RETURN;
          END IF;
        END IF;
      END LOOP;
      INSERT INTO gate AS g (tenant_id, scope_id, arrival)
        SELECT _tenant, x.scope_id, clock_timestamp() + interval '60 s' / x.requests_per_minute FROM quota x
          WHERE x.tenant_id = _tenant AND x.scope_id IN (_tenant, _key) AND x.requests_per_minute IS NOT NULL
        ON CONFLICT (tenant_id, scope_id) DO UPDATE
          SET arrival = greatest(g.arrival, clock_timestamp()) + (excluded.arrival - clock_timestamp());
    END IF;
  END IF;

  INSERT INTO request (tenant_id, id, epoch, key_id, base_model_id, adapter_id, adapter_version_id, model, price_id,
                       reserved_nano, state)
    VALUES (_tenant, _id, _epoch, _key, _base, _adapter, _version, _model, p.id, reserved, 'admitted')
    ON CONFLICT (tenant_id, id) DO NOTHING;
  IF NOT FOUND THEN
    SELECT r.state, r.reserved_nano, x.id, x.prompt_nano, x.cached_nano, x.completion_nano, x.rejected_nano
      INTO decision, reserved, price_id, prompt_nano, cached_nano, completion_nano, rejected_nano
      FROM request r JOIN price x ON x.id = r.price_id WHERE r.tenant_id = _tenant AND r.id = _id;
  ELSE
    decision := 'admitted';
  END IF;
  scope := NULL; admitted := clock_timestamp();
  RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION admit(uuid, uuid, uuid, uuid, uuid, uuid, uuid, text, bigint, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION admit(uuid, uuid, uuid, uuid, uuid, uuid, uuid, text, bigint, bigint, bigint) TO tenantry_app;
