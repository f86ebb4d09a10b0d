-- A member of a tenant's team is a key that a person signs in with: what a key may do, and how it ends, holds for people.
ALTER TABLE api_key ADD COLUMN person boolean NOT NULL DEFAULT false;
CREATE INDEX api_key_person ON api_key (tenant_id, id) WHERE person;

-- Charts of one adapter or one key, and a key's events, must not read the whole tenant's.
CREATE INDEX usage_hour_adapter ON usage_hour (tenant_id, adapter_id, hour);
CREATE INDEX usage_hour_of_key ON usage_hour (tenant_id, key_id, hour);
CREATE INDEX usage_event_of_key ON usage_event (tenant_id, key_id, occurred_at DESC, request_id DESC);
