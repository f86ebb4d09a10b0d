-- What is remembered between requests. A response is named by its request, so that there is at most one of each; what it
-- cost stays in usage_event, which outlives it. Content lives in session_item and response.settings, and nowhere else.
-- json, not jsonb: text may hold NUL, which jsonb refuses.
CREATE TABLE session (
  tenant_id          uuid NOT NULL REFERENCES tenant (id),
  id                 uuid NOT NULL,
  kind               text NOT NULL CHECK (kind IN ('conversation', 'thread')),  -- thread: linked by previous_response_id
  metadata           json NOT NULL DEFAULT '{}',
  policy             text NOT NULL DEFAULT 'pin' CHECK (policy IN ('pin', 'follow')),
  model              text CHECK (length(model) <= 300),  -- as the first turn (pin) or the last (follow) called it
  adapter_id         uuid,
  adapter_version_id uuid,
  keep_s             integer NOT NULL CHECK (keep_s BETWEEN 0 AND 31536000),  -- how long its KV is kept after a turn
  pinned             boolean NOT NULL DEFAULT false,                          -- its KV gives way last
  revision           bigint NOT NULL DEFAULT 1,   -- moves whenever the items do, or a turn begins
  next_seq           bigint NOT NULL DEFAULT 0,
  turn_id            uuid,                        -- the request whose turn it is, while that is admitted and not settled
  created_at         timestamptz NOT NULL DEFAULT now(),
  last_at            timestamptz NOT NULL DEFAULT now(),
  expires_at         timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, adapter_id, adapter_version_id) REFERENCES adapter_version (tenant_id, adapter_id, id),
  FOREIGN KEY (tenant_id, turn_id) REFERENCES request (tenant_id, id),
  CHECK ((adapter_id IS NULL) = (adapter_version_id IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX session_expiry ON session (expires_at);

CREATE TABLE response (
  tenant_id          uuid NOT NULL,
  id                 uuid NOT NULL,
  session_id         uuid NOT NULL,
  previous_id        uuid,
  first_seq          bigint,  -- of a turn of a conversation: what it answered are the listed items before this one
  status             text NOT NULL CHECK (status IN ('completed', 'incomplete')),
  settings           json NOT NULL,  -- how it was asked for, instructions included
  created_at         timestamptz NOT NULL,
  completed_at       timestamptz NOT NULL,
  deleted_at         timestamptz,     -- its content is gone; what came after it can no longer be continued
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, id) REFERENCES request (tenant_id, id),
  FOREIGN KEY (tenant_id, session_id) REFERENCES session (tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, previous_id) REFERENCES response (tenant_id, id)
);
CREATE INDEX response_session ON response (tenant_id, session_id, id);
CREATE INDEX response_previous ON response (tenant_id, previous_id) WHERE previous_id IS NOT NULL;

CREATE TABLE session_item (
  tenant_id   uuid NOT NULL,
  id          uuid NOT NULL,
  session_id  uuid NOT NULL,
  seq         bigint NOT NULL,
  listed      boolean NOT NULL,  -- among the conversation's own items; not those of a thread or a fork
  response_id uuid,
  output      boolean NOT NULL DEFAULT false,
  role        text NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'developer')),
  status      text NOT NULL CHECK (status IN ('completed', 'incomplete')),
  content     json NOT NULL,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, session_id, seq),
  FOREIGN KEY (tenant_id, session_id) REFERENCES session (tenant_id, id) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, response_id) REFERENCES response (tenant_id, id) ON DELETE SET NULL (response_id)
);
CREATE INDEX session_item_response ON session_item (tenant_id, response_id, seq) WHERE response_id IS NOT NULL;

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['session', 'response', 'session_item'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY operator ON %I TO tenantry_operator USING (true) WITH CHECK (true)', t);
    EXECUTE format('CREATE POLICY tenant ON %I TO tenantry_app USING (tenant_id = current_tenant())', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO tenantry_app, tenantry_operator', t);
  END LOOP;
END $$;
