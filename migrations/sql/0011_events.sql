-- A version's requests, and those of a base model alone, are found without reading the tenant's others.
CREATE INDEX usage_event_version ON usage_event (tenant_id, adapter_version_id, occurred_at DESC, request_id DESC)
  WHERE adapter_version_id IS NOT NULL;
CREATE INDEX usage_event_base ON usage_event (tenant_id, base_model_id, occurred_at DESC, request_id DESC)
  WHERE adapter_id IS NULL;
