CREATE INDEX idempotency_expiry ON idempotency (expires_at);
-- Requests of the base cost no entry: they are found by time alone.
CREATE INDEX usage_event_adapter ON usage_event (tenant_id, adapter_id, occurred_at DESC, request_id DESC)
  WHERE adapter_id IS NOT NULL;
