-- Who may touch what. Row-level security is enabled and forced on every table of a tenant; with no tenant set, there are
-- no rows. The operator role has policies of its own, which the app does not inherit: it must SET LOCAL ROLE.
GRANT USAGE ON SCHEMA public TO tenantry_app, tenantry_operator;

CREATE FUNCTION current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT nullif(current_setting('app.tenant_id', true), '')::uuid
$$;

ALTER TABLE tenant ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenant TO tenantry_app USING (id = current_tenant());
CREATE POLICY operator ON tenant TO tenantry_operator USING (true) WITH CHECK (true);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['api_key', 'quota', 'gate', 'wallet', 'idempotency', 'artifact', 'adapter', 'adapter_version',
                           'adapter_alias', 'alias_event', 'request', 'usage_event', 'usage_hour', 'spend',
                           'wallet_entry'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY operator ON %I TO tenantry_operator USING (true) WITH CHECK (true)', t);
    IF t <> 'api_key' THEN
      EXECUTE format('CREATE POLICY tenant ON %I TO tenantry_app USING (tenant_id = current_tenant())', t);
    END IF;
  END LOOP;
END $$;

-- A tenant's transaction can never make an operator key.
CREATE POLICY tenant ON api_key TO tenantry_app USING (tenant_id = current_tenant())
  WITH CHECK (tenant_id = current_tenant() AND NOT 'operator' = ANY (scopes));
-- auth_lookup runs as the schema's owner, whom FORCE binds too.
CREATE POLICY lookup ON api_key FOR SELECT TO CURRENT_USER USING (true);
CREATE POLICY lookup ON tenant FOR SELECT TO CURRENT_USER USING (true);

-- one tenant at a time
GRANT SELECT ON tenant, quota, wallet, wallet_entry, usage_event, usage_hour, spend TO tenantry_app;
GRANT SELECT, INSERT ON api_key, artifact, alias_event, request TO tenantry_app;
GRANT UPDATE (name, expires_at, revoked_at, last_used_at) ON api_key TO tenantry_app;
GRANT SELECT, INSERT, UPDATE ON gate, adapter, adapter_version TO tenantry_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON adapter_alias, idempotency TO tenantry_app;
-- nobody's
GRANT SELECT ON base_model, price, node, alembic_version TO tenantry_app, tenantry_operator;
-- all tenants
GRANT SELECT ON ALL TABLES IN SCHEMA public TO tenantry_operator;
GRANT INSERT, UPDATE ON tenant, api_key, gate, wallet, usage_hour, spend, request, base_model, node TO tenantry_operator;
GRANT INSERT, UPDATE, DELETE ON quota TO tenantry_operator;
GRANT INSERT ON usage_event, wallet_entry, price TO tenantry_operator;
GRANT DELETE ON node, idempotency TO tenantry_operator;

REVOKE ALL ON FUNCTION admit(uuid, uuid, uuid, uuid, uuid, uuid, uuid, text, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION admit(uuid, uuid, uuid, uuid, uuid, uuid, uuid, text, bigint, bigint) TO tenantry_app;
