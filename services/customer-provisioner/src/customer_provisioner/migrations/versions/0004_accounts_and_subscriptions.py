"""Organisations' accounts, assignments of users to accounts, and what accounts have subscribed to.

An organisation's account is a row of ``user_profiles``: it gets its customer as a user does.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

UP = """
ALTER TABLE user_profiles ADD COLUMN organisation boolean NOT NULL DEFAULT false;
ALTER TABLE user_profiles ADD COLUMN deleted_customer_id text;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX user_profiles_organisations ON user_profiles (user_id) WHERE organisation;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX user_profiles_customer_deleted ON user_profiles (user_id)
    WHERE deleted_customer_id = stripe_customer_id;

-- squawk-ignore ban-drop-constraint
ALTER TABLE provisioning_steps DROP CONSTRAINT known_step;
ALTER TABLE provisioning_steps ADD CONSTRAINT known_step
    CHECK (step IN (
        'kept', 'create_sent', 'key_spent', 'refused', 'not_found', 'created', 'adopted',
        'announced', 'reprovision_asked', 'address_replaced', 'link_asked', 'linked',
        'link_refused', 'change_sent', 'change_refused', 'customer_deleted')) NOT VALID;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX provisioning_steps_former_customer ON provisioning_steps (detail)
    WHERE step = 'reprovision_asked';

CREATE TABLE account_assignments (
    user_id      uuid NOT NULL,
    revision     bigint NOT NULL CHECK (revision >= 1),
    account_id   uuid NOT NULL,
    since        timestamptz NOT NULL,
    made_at      timestamptz NOT NULL,
    made_by      text NOT NULL,
    announced_at timestamptz,
    PRIMARY KEY (user_id, revision)
);
CREATE INDEX account_assignments_account ON account_assignments (account_id, user_id);
CREATE INDEX account_assignments_unannounced ON account_assignments (made_at)
    WHERE announced_at IS NULL;

CREATE TABLE subscriptions (
    subscription_id    text PRIMARY KEY CHECK (subscription_id ~ '^sub_[A-Za-z0-9_]{1,200}$'),
    account_id         uuid,
    revision           bigint NOT NULL CHECK (revision >= 1),
    stripe_customer_id text NOT NULL CHECK (stripe_customer_id ~ '^cus_[A-Za-z0-9_]{1,200}$'),
    plan_type          text,
    status             text NOT NULL,
    seats              bigint CHECK (seats >= 0),
    items              jsonb NOT NULL,
    period_start       timestamptz,
    period_end         timestamptz,
    trial_end          timestamptz,
    cancel_at          timestamptz,
    ended_at           timestamptz,
    plan_since         timestamptz NOT NULL,
    as_of              timestamptz NOT NULL,
    announced_revision bigint NOT NULL DEFAULT 0 CHECK (announced_revision <= revision),
    announced_at       timestamptz,
    CONSTRAINT announced_for_an_account CHECK (announced_revision = 0 OR account_id IS NOT NULL)
);
CREATE INDEX subscriptions_account ON subscriptions (account_id);
CREATE INDEX subscriptions_customer ON subscriptions (stripe_customer_id);
CREATE INDEX subscriptions_unannounced ON subscriptions (as_of)
    WHERE announced_revision < revision AND account_id IS NOT NULL;
CREATE INDEX subscriptions_without_account ON subscriptions (subscription_id)
    WHERE account_id IS NULL AND plan_type IS NOT NULL AND ended_at IS NULL;
CREATE INDEX subscriptions_without_plan ON subscriptions (subscription_id)
    WHERE plan_type IS NULL AND ended_at IS NULL AND account_id IS NOT NULL;

CREATE TABLE subscription_sweep (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    first_at     timestamptz,
    previous_at  timestamptz,
    read_until   timestamptz,
    announced_at timestamptz CHECK (announced_at IS NULL OR read_until IS NOT NULL),
    started_at   timestamptz,
    unread       boolean NOT NULL DEFAULT false,
    after_id     text,
    due_at       timestamptz NOT NULL DEFAULT now()
);
INSERT INTO subscription_sweep DEFAULT VALUES;

CREATE VIEW user_subscriptions AS
SELECT account_id, subscription_id, plan_type, status, seats,
       period_start AS current_period_start, period_end AS current_period_end,
       trial_end, cancel_at, ended_at, stripe_customer_id, as_of
  FROM subscriptions
 WHERE account_id IS NOT NULL;

GRANT UPDATE (deleted_customer_id) ON user_profiles TO customer_provisioner;
GRANT SELECT, INSERT, UPDATE (announced_at) ON account_assignments TO customer_provisioner;
GRANT SELECT, INSERT, UPDATE (
    account_id, revision, stripe_customer_id, plan_type, status, seats, items, period_start,
    period_end, trial_end, cancel_at, ended_at, plan_since, as_of, announced_revision,
    announced_at) ON subscriptions TO customer_provisioner;
GRANT SELECT, UPDATE (
    first_at, previous_at, read_until, announced_at, started_at, unread, after_id, due_at)
    ON subscription_sweep TO customer_provisioner;
GRANT SELECT ON user_subscriptions TO customer_provisioner;
"""

DOWN = """
DROP VIEW user_subscriptions;
DROP TABLE subscription_sweep;
DROP TABLE subscriptions;
DROP TABLE account_assignments;

DROP INDEX provisioning_steps_former_customer;
DELETE FROM provisioning_steps WHERE step = 'customer_deleted';
ALTER TABLE provisioning_steps DROP CONSTRAINT known_step;
ALTER TABLE provisioning_steps ADD CONSTRAINT known_step
    CHECK (step IN (
        'kept', 'create_sent', 'key_spent', 'refused', 'not_found', 'created', 'adopted',
        'announced', 'reprovision_asked', 'address_replaced', 'link_asked', 'linked',
        'link_refused', 'change_sent', 'change_refused')) NOT VALID;

DROP INDEX user_profiles_customer_deleted;
DROP INDEX user_profiles_organisations;
ALTER TABLE user_profiles DROP COLUMN deleted_customer_id;
ALTER TABLE user_profiles DROP COLUMN organisation;
"""


def upgrade() -> None:
    """Add it all; no row is written but the one of the sweep's progress."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop all of it; organisations stay, as users with a customer."""
    for statement in DOWN.split(";\n"):
        if statement.strip():
            op.execute(statement)
