-- An engine tells digests, and a blob store holds them: who has them must not be asked of every version there is.
CREATE INDEX adapter_version_digest ON adapter_version (digest);
