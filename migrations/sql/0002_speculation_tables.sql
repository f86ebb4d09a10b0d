-- Guesses: what a rejected one costs, and how many there were per hour. Events have counted them from the beginning.
ALTER TABLE price ADD COLUMN rejected_nano bigint NOT NULL DEFAULT 0
  CHECK (rejected_nano BETWEEN 0 AND completion_nano);  -- a guess that fell is never dearer than a token

ALTER TABLE usage_hour ADD COLUMN drafted bigint NOT NULL DEFAULT 0, ADD COLUMN accepted bigint NOT NULL DEFAULT 0;
-- The schema's owner, who runs this, sees rows of tenants only while he is not bound by their policies.
ALTER TABLE usage_event NO FORCE ROW LEVEL SECURITY;
ALTER TABLE usage_hour NO FORCE ROW LEVEL SECURITY;
UPDATE usage_hour u SET drafted = e.drafted, accepted = e.accepted
  FROM (SELECT tenant_id, date_trunc('hour', occurred_at, 'UTC') AS hour, key_id, base_model_id, adapter_version_id,
               sum(drafted) AS drafted, sum(accepted) AS accepted FROM usage_event GROUP BY 1, 2, 3, 4, 5) e
  WHERE u.tenant_id = e.tenant_id AND u.hour = e.hour AND u.key_id = e.key_id AND u.base_model_id = e.base_model_id
    AND u.adapter_version_id IS NOT DISTINCT FROM e.adapter_version_id;
ALTER TABLE usage_event FORCE ROW LEVEL SECURITY;
ALTER TABLE usage_hour FORCE ROW LEVEL SECURITY;
