-- Closed days, derived from usage_hour and computed anew at will. Per dimension a few hundred groups at most have a row
-- of their own: the dearest and the longest. All others are one row without a group, which also tells the most that any
-- one of them came to.
CREATE TABLE usage_day (
  tenant_id   uuid NOT NULL REFERENCES tenant (id),
  dimension   text NOT NULL CHECK (dimension IN ('adapter', 'version', 'key')),
  day         timestamptz NOT NULL CHECK (day = date_trunc('day', day, 'UTC')),
  group_id    uuid,
  requests    bigint NOT NULL,
  prompt      bigint NOT NULL,
  cached      bigint NOT NULL,
  completion  bigint NOT NULL,
  drafted     bigint NOT NULL,
  accepted    bigint NOT NULL,
  nano        bigint NOT NULL,
  most_nano   bigint,
  most_tokens bigint,
  CONSTRAINT usage_day_key UNIQUE NULLS NOT DISTINCT (tenant_id, dimension, day, group_id),
  CHECK ((group_id IS NULL) = (most_nano IS NOT NULL) AND (group_id IS NULL) = (most_tokens IS NOT NULL))
);

-- Up to which day a tenant's are closed. '-infinity' closes them all once more.
CREATE TABLE usage_closed (
  tenant_id uuid PRIMARY KEY REFERENCES tenant (id),
  until     timestamptz NOT NULL
);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['usage_day', 'usage_closed'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY operator ON %I TO tenantry_operator USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY tenant ON %I TO tenantry_app USING (tenant_id = current_tenant())', t);
  END LOOP;
END $$;
GRANT SELECT ON usage_day, usage_closed TO tenantry_app;
GRANT SELECT, INSERT, DELETE ON usage_day TO tenantry_operator;
GRANT SELECT, INSERT, UPDATE ON usage_closed TO tenantry_operator;
