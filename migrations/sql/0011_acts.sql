-- One row an act, written with it and never changed. The actor is told as he was then: his key may be another tenant's
-- (the operator's), which this tenant does not see, so there is no foreign key.
CREATE TABLE act (
  tenant_id       uuid NOT NULL REFERENCES tenant (id),
  id              uuid NOT NULL,
  at              timestamptz NOT NULL DEFAULT clock_timestamp(),
  kind            text NOT NULL CHECK (kind ~ '^[a-z_]{1,40}$'),
  subject         text NOT NULL,
  detail          text NOT NULL DEFAULT '',
  reason          text NOT NULL DEFAULT '',
  adapter         text,  -- whose name it was, where an adapter was acted on
  actor_tenant_id uuid,
  actor_key_id    uuid,
  actor_name      text,
  actor_person    boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, id),
  CHECK ((actor_key_id IS NULL) = (actor_tenant_id IS NULL) AND (actor_key_id IS NULL) = (actor_name IS NULL))
);

-- What was known before, by whom where it was kept. The schema's owner, who runs this, sees rows of tenants only while
-- he is not bound by their policies.
DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['alias_event', 'adapter', 'adapter_version', 'browser_session', 'wallet_entry'] LOOP
    EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', t);
  END LOOP;
END $$;

INSERT INTO act (tenant_id, id, at, kind, subject, detail, reason, adapter, actor_tenant_id, actor_key_id, actor_name,
                 actor_person)
SELECT o.tenant_id, gen_random_uuid(), o.at, o.kind, o.subject, o.detail, o.reason, o.adapter, k.tenant_id, k.id, k.name,
       coalesce(k.person, false)
FROM (
  SELECT e.tenant_id, e.at, CASE WHEN e.to_version IS NULL THEN 'alias_removed' ELSE 'alias_moved' END AS kind,
         a.name || '@' || e.alias AS subject,
         coalesce(f.number::text, '') || ' → ' || coalesce(t.number::text, '') AS detail, e.reason, a.name AS adapter,
         e.actor_key_id AS key_id
  FROM alias_event e JOIN adapter a ON a.tenant_id = e.tenant_id AND a.id = e.adapter_id
  LEFT JOIN adapter_version f ON f.tenant_id = e.tenant_id AND f.id = e.from_version
  LEFT JOIN adapter_version t ON t.tenant_id = e.tenant_id AND t.id = e.to_version
  UNION ALL
  SELECT v.tenant_id, v.created_at, CASE v.state WHEN 'rejected' THEN 'version_rejected' ELSE 'version_uploaded' END,
         a.name || ':' || v.number, '', v.state_reason, a.name, v.created_by
  FROM adapter_version v JOIN adapter a ON a.tenant_id = v.tenant_id AND a.id = v.adapter_id
  WHERE v.state <> 'validating'
  UNION ALL
  SELECT tenant_id, deleted_at, 'adapter_deleted', name, '', '', name, NULL FROM adapter WHERE deleted_at IS NOT NULL
  UNION ALL
  SELECT tenant_id, created_at, 'key_created', name, array_to_string(scopes, ', '), '', NULL, NULL FROM api_key
  UNION ALL
  SELECT tenant_id, revoked_at, 'key_revoked', name, '', '', NULL, NULL FROM api_key WHERE revoked_at IS NOT NULL
  UNION ALL
  SELECT s.tenant_id, s.created_at, 'signed_in', c.name, '', '', NULL, s.key_id
  FROM browser_session s JOIN api_key c ON c.tenant_id = s.tenant_id AND c.id = s.key_id
  UNION ALL
  SELECT w.tenant_id, w.at, CASE w.kind WHEN 'grant' THEN 'wallet_granted' ELSE 'wallet_adjusted' END, t.name,
         trim_scale(w.nano / 1000000000.0)::text, w.note, NULL, NULL
  FROM wallet_entry w JOIN tenant t ON t.id = w.tenant_id WHERE w.kind <> 'usage'
  UNION ALL
  SELECT id, created_at, 'tenant_created', name, '', '', NULL, NULL FROM tenant
) o LEFT JOIN api_key k ON k.tenant_id = o.tenant_id AND k.id = o.key_id;

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['alias_event', 'adapter', 'adapter_version', 'browser_session', 'wallet_entry'] LOOP
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
  END LOOP;
END $$;

-- Read newest first: some kinds of act, those on one adapter, and what the operator did at other tenants'.
CREATE INDEX act_kind ON act (tenant_id, kind, at DESC, id DESC);
CREATE INDEX act_adapter ON act (tenant_id, adapter, at DESC, id DESC) WHERE adapter IS NOT NULL;
CREATE INDEX act_elsewhere ON act (actor_tenant_id, kind, at DESC, id DESC) WHERE actor_tenant_id <> tenant_id;
DROP INDEX alias_event_at, browser_session_at;

ALTER TABLE act ENABLE ROW LEVEL SECURITY;
ALTER TABLE act FORCE ROW LEVEL SECURITY;
CREATE POLICY operator ON act TO tenantry_operator USING (true) WITH CHECK (true);
-- Nobody tells of himself in another's name.
CREATE POLICY tenant ON act TO tenantry_app USING (tenant_id = current_tenant())
  WITH CHECK (tenant_id = current_tenant() AND coalesce(actor_tenant_id, tenant_id) = tenant_id);
GRANT SELECT, INSERT ON act TO tenantry_app, tenantry_operator;
