-- What may be asked for. Foreign keys are composite: their checks ignore row-level security, so the tenant is in them.
CREATE TABLE base_model (
  id         uuid PRIMARY KEY,
  name       text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 200),
  digest     bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
  spec       jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE artifact (
  tenant_id  uuid NOT NULL REFERENCES tenant (id),
  digest     bytea NOT NULL CHECK (length(digest) = 32),
  bytes      bigint NOT NULL CHECK (bytes > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, digest)
);

CREATE TABLE adapter (
  tenant_id     uuid NOT NULL REFERENCES tenant (id),
  id            uuid NOT NULL,
  name          text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  base_model_id uuid NOT NULL REFERENCES base_model (id),
  description   text NOT NULL DEFAULT '' CHECK (length(description) <= 2000),
  etag          bigint NOT NULL DEFAULT 1,
  created_at    timestamptz NOT NULL DEFAULT now(),
  deleted_at    timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX adapter_name ON adapter (tenant_id, name) WHERE deleted_at IS NULL;

CREATE TABLE adapter_version (
  tenant_id    uuid NOT NULL,
  id           uuid NOT NULL,
  adapter_id   uuid NOT NULL,
  number       integer NOT NULL CHECK (number > 0),
  state        text NOT NULL CHECK (state IN ('validating', 'ready', 'rejected', 'quarantined', 'retired')),
  state_reason text NOT NULL DEFAULT '',
  digest       bytea,
  bytes        bigint,
  rank         integer,
  targets      text[],
  manifest     jsonb,
  report       jsonb,
  created_by   uuid,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, adapter_id, number),
  UNIQUE (tenant_id, adapter_id, id),
  FOREIGN KEY (tenant_id, adapter_id) REFERENCES adapter (tenant_id, id),
  FOREIGN KEY (tenant_id, digest) REFERENCES artifact (tenant_id, digest),
  FOREIGN KEY (tenant_id, created_by) REFERENCES api_key (tenant_id, id),
  CHECK (state NOT IN ('ready', 'retired') OR (digest IS NOT NULL AND manifest IS NOT NULL))
);

-- A version's content is settled once: what it is can be filled in, never changed.
CREATE FUNCTION keep_version_content() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NEW.adapter_id <> OLD.adapter_id OR NEW.number <> OLD.number
     OR (OLD.digest IS NOT NULL AND NEW.digest IS DISTINCT FROM OLD.digest)
     OR (OLD.manifest IS NOT NULL AND NEW.manifest IS DISTINCT FROM OLD.manifest)
     OR (OLD.rank IS NOT NULL AND NEW.rank IS DISTINCT FROM OLD.rank)
     OR (OLD.targets IS NOT NULL AND NEW.targets IS DISTINCT FROM OLD.targets) THEN
    RAISE EXCEPTION 'an adapter version is immutable' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER keep_version_content BEFORE UPDATE ON adapter_version FOR EACH ROW EXECUTE FUNCTION keep_version_content();

CREATE TABLE adapter_alias (
  tenant_id  uuid NOT NULL,
  adapter_id uuid NOT NULL,
  alias      text NOT NULL CHECK (alias ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  version_id uuid NOT NULL,
  etag       bigint NOT NULL DEFAULT 1,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, adapter_id, alias),
  FOREIGN KEY (tenant_id, adapter_id, version_id) REFERENCES adapter_version (tenant_id, adapter_id, id)
);

CREATE TABLE alias_event (
  tenant_id    uuid NOT NULL,
  id           uuid NOT NULL,
  adapter_id   uuid NOT NULL,
  alias        text NOT NULL,
  from_version uuid,
  to_version   uuid,
  actor_key_id uuid,
  reason       text NOT NULL DEFAULT '' CHECK (length(reason) <= 500),
  at           timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, adapter_id) REFERENCES adapter (tenant_id, id),
  FOREIGN KEY (tenant_id, adapter_id, from_version) REFERENCES adapter_version (tenant_id, adapter_id, id),
  FOREIGN KEY (tenant_id, adapter_id, to_version) REFERENCES adapter_version (tenant_id, adapter_id, id)
);
CREATE INDEX alias_event_history ON alias_event (tenant_id, adapter_id, alias, id);
