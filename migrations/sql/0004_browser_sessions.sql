-- People at the console. A session in a browser stands for one API key and ends with it; a sign-in link opens one, once.
-- Like keys, both are kept as HMACs under a versioned pepper: reading this table signs nobody in.
CREATE TABLE browser_session (
  tenant_id  uuid NOT NULL,
  id         uuid NOT NULL UNIQUE,  -- looked up before the tenant is known
  key_id     uuid NOT NULL,
  pepper_id  integer NOT NULL,
  mac        bytea NOT NULL CHECK (length(mac) = 32),
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id)
);
CREATE INDEX browser_session_key ON browser_session (tenant_id, key_id);

CREATE TABLE sign_in_link (
  tenant_id  uuid NOT NULL,
  id         uuid NOT NULL UNIQUE,
  key_id     uuid NOT NULL,
  pepper_id  integer NOT NULL,
  mac        bytea NOT NULL CHECK (length(mac) = 32),
  expires_at timestamptz NOT NULL,
  used_at    timestamptz,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id)
);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['browser_session', 'sign_in_link'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY operator ON %I TO tenantry_operator USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY tenant ON %I TO tenantry_app USING (tenant_id = current_tenant())', t);
  END LOOP;
END $$;
GRANT SELECT ON browser_session, sign_in_link TO tenantry_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON browser_session, sign_in_link TO tenantry_operator;
