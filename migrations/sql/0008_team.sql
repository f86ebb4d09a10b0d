-- A member of a tenant's team is a key that a person signs in with: what a key may do, and how it ends, holds for people.
ALTER TABLE api_key ADD COLUMN person boolean NOT NULL DEFAULT false;
CREATE INDEX api_key_person ON api_key (tenant_id, id) WHERE person;

-- Charts of one adapter or one key, and a key's events, must not read the whole tenant's.
CREATE INDEX usage_hour_adapter ON usage_hour (tenant_id, adapter_id, hour);
CREATE INDEX usage_hour_of_key ON usage_hour (tenant_id, key_id, hour);
CREATE INDEX usage_event_of_key ON usage_event (tenant_id, key_id, occurred_at DESC, request_id DESC);

-- Activity is told newest first from the rows that acts left.
CREATE INDEX alias_event_at ON alias_event (tenant_id, at DESC, id DESC);
CREATE INDEX adapter_version_at ON adapter_version (tenant_id, created_at DESC, id DESC);
CREATE INDEX browser_session_at ON browser_session (tenant_id, created_at DESC, id DESC);

-- How many versions stand in each state, read from the index alone; and adapters that have one in some state.
CREATE INDEX adapter_version_state ON adapter_version (tenant_id, state, adapter_id);
CREATE INDEX adapter_deleted ON adapter (tenant_id, id) WHERE deleted_at IS NOT NULL;
