-- Who is asking, and how much they may ask for. Ids are uuidv7, made by the application. Times are the database's.
CREATE TABLE tenant (
  id          uuid PRIMARY KEY,
  name        text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
  is_operator boolean NOT NULL DEFAULT false,
  etag        bigint NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX one_operator_tenant ON tenant (is_operator) WHERE is_operator;

CREATE TABLE api_key (
  tenant_id    uuid NOT NULL REFERENCES tenant (id),
  id           uuid NOT NULL,
  key_id       text NOT NULL UNIQUE CHECK (key_id ~ '^[0-9A-Za-z]{16}$'),  -- the public part of the key
  name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
  env          text NOT NULL CHECK (env IN ('live', 'test')),
  scopes       text[] NOT NULL CHECK (scopes <@ ARRAY['inference', 'manage', 'operator'] AND cardinality(scopes) > 0),
  pepper_id    integer NOT NULL,
  mac          bytea NOT NULL CHECK (length(mac) = 32),
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz,
  revoked_at   timestamptz,
  last_used_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);

-- Limits of a tenant (scope_id = tenant_id) or of one key (scope_id = key). NULL means unlimited.
CREATE TABLE quota (
  tenant_id           uuid NOT NULL REFERENCES tenant (id),
  scope_id            uuid NOT NULL,
  concurrency         integer CHECK (concurrency >= 0),
  requests_per_minute integer CHECK (requests_per_minute BETWEEN 1 AND 6000000),
  budget_nano         bigint CHECK (budget_nano >= 0),
  budget_period       text NOT NULL DEFAULT 'total' CHECK (budget_period IN ('month', 'total')),
  PRIMARY KEY (tenant_id, scope_id)
);

-- The limiter's clock (GCRA's theoretical arrival time); the tenant's own row is also the lock that admission takes.
CREATE TABLE gate (
  tenant_id uuid NOT NULL REFERENCES tenant (id),
  scope_id  uuid NOT NULL,
  arrival   timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (tenant_id, scope_id)
) WITH (fillfactor = 50);

CREATE TABLE wallet (
  tenant_id    uuid PRIMARY KEY REFERENCES tenant (id),
  balance_nano bigint NOT NULL DEFAULT 0,  -- grants less usage; negative is owed
  seq          bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE FUNCTION open_accounts() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  INSERT INTO wallet (tenant_id) VALUES (NEW.id);
  INSERT INTO gate (tenant_id, scope_id) VALUES (NEW.id, NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER open_accounts AFTER INSERT ON tenant FOR EACH ROW EXECUTE FUNCTION open_accounts();

-- One life of a gateway process. It admits only while its heartbeat is fresh (see admit).
CREATE TABLE node (
  epoch      uuid PRIMARY KEY,
  host       text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  seen_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- The answer to a POST that carried an Idempotency-Key.
CREATE TABLE idempotency (
  tenant_id    uuid NOT NULL REFERENCES tenant (id),
  key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  request_hash bytea NOT NULL CHECK (length(request_hash) = 32),
  state        text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done')),
  status       integer,
  headers      jsonb,
  body         bytea,
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz NOT NULL DEFAULT now() + interval '24 hours',
  PRIMARY KEY (tenant_id, key)
);

-- Key lookup happens before a tenant is known, so it is the one function that sees every key.
CREATE FUNCTION auth_lookup(_key_id text)
RETURNS TABLE (tenant_id uuid, tenant_name text, id uuid, env text, scopes text[], pepper_id integer, mac bytea,
               live boolean, unused_for_a_minute boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT k.tenant_id, t.name, k.id, k.env, k.scopes, k.pepper_id, k.mac,
         t.status = 'active' AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()),
         k.last_used_at IS NULL OR k.last_used_at < clock_timestamp() - interval '1 minute'
  FROM public.api_key k JOIN public.tenant t ON t.id = k.tenant_id WHERE k.key_id = _key_id
$$;
REVOKE ALL ON FUNCTION auth_lookup(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth_lookup(text) TO tenantry_app;
