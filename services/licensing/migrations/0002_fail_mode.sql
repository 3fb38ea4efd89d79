-- What deciders answer about a feature while they are cut off: for so many seconds it stays allowed; 0 is `closed`.
-- Features of before get the default of the contract. A constant default rewrites no row.
ALTER TABLE feature
  ADD COLUMN fail_grace_seconds integer NOT NULL DEFAULT 300 CHECK (fail_grace_seconds BETWEEN 0 AND 604800);
