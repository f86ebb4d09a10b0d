-- What it costs. Plain tables with time indexes; partition usage_event and request by day when retention asks for it.
-- Money is bigint nano-units. usage_event and wallet_entry are append-only: nobody is granted UPDATE or DELETE.
CREATE TABLE price (
  id              uuid PRIMARY KEY,
  base_model_id   uuid NOT NULL REFERENCES base_model (id),
  prompt_nano     bigint NOT NULL CHECK (prompt_nano BETWEEN 0 AND 1000000000000),  -- per token
  cached_nano     bigint NOT NULL CHECK (cached_nano BETWEEN 0 AND prompt_nano),
  completion_nano bigint NOT NULL CHECK (completion_nano BETWEEN 0 AND 1000000000000),
  effective_from  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (base_model_id, effective_from)
);

CREATE TABLE request (
  tenant_id          uuid NOT NULL REFERENCES tenant (id),
  id                 uuid NOT NULL,
  epoch              uuid,  -- the gateway life that owns it; NULL: abandoned, the journal decides
  key_id             uuid NOT NULL,
  base_model_id      uuid NOT NULL REFERENCES base_model (id),
  adapter_id         uuid,
  adapter_version_id uuid,
  model              text NOT NULL CHECK (length(model) <= 300),
  price_id           uuid NOT NULL REFERENCES price (id),
  reserved_nano      bigint NOT NULL CHECK (reserved_nano >= 0),
  state              text NOT NULL CHECK (state IN ('admitted', 'settled')),
  admitted_at        timestamptz NOT NULL DEFAULT now(),
  settled_at         timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id),
  FOREIGN KEY (tenant_id, adapter_id, adapter_version_id) REFERENCES adapter_version (tenant_id, adapter_id, id),
  CHECK ((adapter_id IS NULL) = (adapter_version_id IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX request_open ON request (tenant_id) INCLUDE (key_id, epoch, reserved_nano) WHERE state = 'admitted';

CREATE TABLE usage_event (
  tenant_id          uuid NOT NULL,
  request_id         uuid NOT NULL,
  key_id             uuid NOT NULL,
  base_model_id      uuid NOT NULL,
  adapter_id         uuid,
  adapter_version_id uuid,
  model              text NOT NULL,
  price_id           uuid NOT NULL REFERENCES price (id),
  prompt             bigint NOT NULL CHECK (prompt >= 0),
  cached             bigint NOT NULL CHECK (cached BETWEEN 0 AND prompt),
  completion         bigint NOT NULL CHECK (completion >= 0),
  drafted            bigint NOT NULL CHECK (drafted >= 0),
  accepted           bigint NOT NULL CHECK (accepted BETWEEN 0 AND drafted),
  nano               bigint NOT NULL CHECK (nano >= 0),
  outcome            text NOT NULL CHECK (outcome IN ('completed', 'cancelled', 'failed', 'refused', 'recovered')),
  admitted_at        timestamptz NOT NULL,
  occurred_at        timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, request_id),
  FOREIGN KEY (tenant_id, request_id) REFERENCES request (tenant_id, id)
);
CREATE INDEX usage_event_time ON usage_event (tenant_id, occurred_at DESC, request_id DESC);

CREATE TABLE usage_hour (
  tenant_id          uuid NOT NULL REFERENCES tenant (id),
  hour               timestamptz NOT NULL,
  key_id             uuid NOT NULL,
  base_model_id      uuid NOT NULL,
  adapter_id         uuid,
  adapter_version_id uuid,
  requests           bigint NOT NULL,
  prompt             bigint NOT NULL,
  cached             bigint NOT NULL,
  completion         bigint NOT NULL,
  nano               bigint NOT NULL,
  CONSTRAINT usage_hour_key UNIQUE NULLS NOT DISTINCT (tenant_id, hour, key_id, base_model_id, adapter_version_id),
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id)
) WITH (fillfactor = 70);

-- What a scope has settled, in all ('-infinity') and per month (its first day, UTC). Budgets read it.
CREATE TABLE spend (
  tenant_id uuid NOT NULL REFERENCES tenant (id),
  scope_id  uuid NOT NULL,
  period    date NOT NULL,
  nano      bigint NOT NULL,
  PRIMARY KEY (tenant_id, scope_id, period)
) WITH (fillfactor = 50);

CREATE TABLE wallet_entry (
  tenant_id     uuid NOT NULL,
  seq           bigint NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('grant', 'usage', 'adjust')),
  nano          bigint NOT NULL,
  balance_after bigint NOT NULL,
  request_id    uuid,
  note          text NOT NULL DEFAULT '' CHECK (length(note) <= 500),
  at            timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, seq),
  FOREIGN KEY (tenant_id) REFERENCES wallet (tenant_id),
  FOREIGN KEY (tenant_id, request_id) REFERENCES usage_event (tenant_id, request_id),
  CHECK ((kind = 'usage') = (request_id IS NOT NULL))
);
CREATE UNIQUE INDEX wallet_entry_request ON wallet_entry (tenant_id, request_id) WHERE request_id IS NOT NULL;
