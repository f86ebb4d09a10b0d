-- A tenant's rows. Ids are uuidv7 of the moment that a row tells, as the application makes them. Foreign keys are not
-- checked meanwhile. The words in braces are Size's fields and four ids, filled in by console_rows.py.
SET session_replication_role = replica;
SELECT setseed(0.5);
CREATE TEMP TABLE k AS SELECT i, uuidv7(make_interval(secs => -3000000 + i)) AS id FROM generate_series(0, {keys} - 1) i;
CREATE TEMP TABLE a AS SELECT i, uuidv7(make_interval(secs => -2700000 + i)) AS id,
  uuidv7(make_interval(secs => -2700000 + i)) AS version, sha256(i::text::bytea) AS digest
  FROM generate_series(0, {adapters} - 1) i;
CREATE UNIQUE INDEX ON k (i);
CREATE UNIQUE INDEX ON a (i);
ANALYZE k, a;
INSERT INTO tenant (id, name) SELECT uuidv7(make_interval(secs => -i)), 'tenant-' || i FROM generate_series(1, {tenants}) i;
INSERT INTO api_key (tenant_id, id, key_id, name, env, scopes, pepper_id, mac, created_at)
  SELECT '{tenant}', id, lpad(i::text, 16, 'z'), 'service ' || i, 'live', '{{inference}}', 1, sha256(i::text::bytea),
         uuid_extract_timestamp(id) FROM k;
INSERT INTO artifact (tenant_id, digest, bytes) SELECT '{tenant}', digest, 4000000 FROM a;
INSERT INTO adapter (tenant_id, id, name, base_model_id, created_at)
  SELECT '{tenant}', id, 'adapter-' || lpad(i::text, 6, '0'), '{base}', uuid_extract_timestamp(id) FROM a;
INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, digest, bytes, rank, targets, manifest,
                             created_by, created_at)
  SELECT '{tenant}', version, a.id, 1, 'ready', digest, 4000000, 8, '{{q_proj,v_proj}}', '{{}}', k.id,
         uuid_extract_timestamp(version) FROM a JOIN k ON k.i = a.i % {keys};
INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, state_reason, created_at)
  SELECT '{tenant}', uuidv7(make_interval(secs => -100000 - i)), id, 2, 'rejected', 'rank', now() FROM a WHERE i % 1000 = 7;
INSERT INTO adapter_alias (tenant_id, adapter_id, alias, version_id) SELECT '{tenant}', id, 'default', version FROM a;
INSERT INTO alias_event (tenant_id, id, adapter_id, alias, to_version, actor_key_id, reason, at)
  SELECT '{tenant}', uuidv7(make_interval(secs => -2700000 + a.i)), a.id, 'default', version, k.id, 'first',
         uuid_extract_timestamp(a.id) FROM a JOIN k ON k.i = a.i % {keys};
CREATE TEMP TABLE e AS SELECT i, uuidv7(make_interval(secs => -2592000.0 * (1 - i::float8 / {events}))) AS id,
  floor({adapters} * random() ^ 3)::int AS adapter, floor({keys} * random() ^ 2)::int AS key,
  100 + floor(random() * 900)::int AS prompt, floor(random() * 100)::int AS cached,
  floor(random() * 200)::int AS completion FROM generate_series(1, {events}) i;
ANALYZE e;
INSERT INTO request (tenant_id, id, key_id, base_model_id, adapter_id, adapter_version_id, model, price_id, reserved_nano,
                     state, admitted_at, settled_at)
  SELECT '{tenant}', e.id, k.id, '{base}', a.id, a.version, 'adapter-' || lpad(a.i::text, 6, '0'), '{price}', 0,
         'settled', uuid_extract_timestamp(e.id), uuid_extract_timestamp(e.id)
  FROM e JOIN a ON a.i = e.adapter JOIN k ON k.i = e.key ORDER BY e.i;  -- rows lie as they came
INSERT INTO usage_event (tenant_id, request_id, key_id, base_model_id, adapter_id, adapter_version_id, model, price_id,
                         prompt, cached, completion, drafted, accepted, nano, outcome, admitted_at, occurred_at)
  SELECT '{tenant}', r.id, r.key_id, r.base_model_id, r.adapter_id, r.adapter_version_id, r.model, r.price_id, e.prompt,
         e.cached, e.completion, e.completion / 2, e.completion / 4, e.prompt * 1000 + e.completion * 3000, 'completed',
         r.admitted_at, r.settled_at FROM e JOIN request r ON r.tenant_id = '{tenant}' AND r.id = e.id
  ORDER BY e.i;
INSERT INTO usage_hour (tenant_id, hour, key_id, base_model_id, adapter_id, adapter_version_id, requests, prompt, cached,
                        completion, nano, drafted, accepted)
  SELECT tenant_id, date_trunc('hour', occurred_at, 'UTC'), key_id, base_model_id, adapter_id, adapter_version_id, count(*),
         sum(prompt), sum(cached), sum(completion), sum(nano), sum(drafted), sum(accepted)
  FROM usage_event WHERE tenant_id = '{tenant}' GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 2;
UPDATE usage_closed SET until = '-infinity';  -- what lies in the past was not there when the gateway closed it
INSERT INTO wallet_entry (tenant_id, seq, kind, nano, balance_after, request_id, at)
  SELECT '{tenant}', e.i, 'usage', -1000, -1000 * e.i, e.id, uuid_extract_timestamp(e.id) FROM e;
INSERT INTO session (tenant_id, id, kind, model, keep_s, created_at, last_at, expires_at)
  SELECT '{tenant}', e.id, 'conversation', 'adapter', 600, uuid_extract_timestamp(e.id), uuid_extract_timestamp(e.id),
         now() + interval '30 days' FROM e WHERE i % 10 = 0;
INSERT INTO response (tenant_id, id, session_id, first_seq, status, settings, created_at, completed_at)
  SELECT '{tenant}', e.id, e.id, 0, 'completed', '{{"model": "adapter"}}', uuid_extract_timestamp(e.id), uuid_extract_timestamp(e.id)
  FROM e WHERE i % 10 = 0;
INSERT INTO browser_session (tenant_id, id, key_id, pepper_id, mac, created_at, expires_at)
  SELECT '{tenant}', uuidv7(), k.id, 1, sha256(k.i::text::bytea), now() - make_interval(secs => k.i),
         now() + interval '12 hours' FROM k;
INSERT INTO act (tenant_id, id, at, kind, subject, adapter, actor_tenant_id, actor_key_id, actor_name)
  SELECT '{tenant}', uuidv7(make_interval(secs => -2700000 + a.i)), uuid_extract_timestamp(a.id), done.kind,
         'adapter-' || lpad(a.i::text, 6, '0'), 'adapter-' || lpad(a.i::text, 6, '0'), '{tenant}', k.id, 'service'
  FROM a JOIN k ON k.i = a.i % {keys} CROSS JOIN (VALUES ('version_uploaded'), ('alias_moved')) AS done (kind);
INSERT INTO act (tenant_id, id, at, kind, subject, actor_tenant_id, actor_key_id, actor_name)
  SELECT '{tenant}', e.id, uuid_extract_timestamp(e.id), CASE e.i % 100000 WHEN 7 THEN 'key_revoked' ELSE 'signed_in' END,
         'service', '{tenant}', k.id, 'service' FROM e JOIN k ON k.i = e.key;
