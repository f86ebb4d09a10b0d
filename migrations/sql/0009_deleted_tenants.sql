-- 'deleted' is the last state: keys are revoked, adapters retired, sessions gone, and no statement leads back.
ALTER TABLE tenant DROP CONSTRAINT tenant_status_check;
ALTER TABLE tenant ADD CONSTRAINT tenant_status_check CHECK (status IN ('active', 'suspended', 'deleted'));
