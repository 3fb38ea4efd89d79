-- Features granted to single licenses beyond their plans, and which features a plan version lets be granted.
ALTER TABLE license
  -- [{feature, activatedAt, activatedBy, onBehalfOf, expiresAt: string | null, configuration}], by feature; bounded in the
  -- code. Part of the row, so that a license and its grants are read and written as one, under the customer's row lock.
  ADD COLUMN grants jsonb NOT NULL DEFAULT '[]';

-- Versions of before let nothing be granted.
ALTER TABLE plan_version ADD COLUMN grantable text[] NOT NULL DEFAULT '{}';

-- The feature that was activated or deactivated, or whose grant is over.
ALTER TABLE license_history ADD COLUMN feature text;
