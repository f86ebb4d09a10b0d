-- Parts of usage_event.cached; they cost the same, so the books do not know them.
ALTER TABLE response
  ADD COLUMN cached_host bigint NOT NULL DEFAULT 0 CHECK (cached_host >= 0),
  ADD COLUMN cached_disk bigint NOT NULL DEFAULT 0 CHECK (cached_disk >= 0);
