"""The users' profiles, the steps taken for each, and a view of who has no customer yet.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UP = """
CREATE TABLE user_profiles (
    user_id              uuid PRIMARY KEY,
    email                text NOT NULL CHECK (length(email) BETWEEN 3 AND 512),
    name                 text,
    state                text NOT NULL CHECK (state IN ('provisioning', 'provisioned')),
    generation           integer NOT NULL CHECK (generation >= 1),
    create_request       jsonb NOT NULL,
    key_n                integer NOT NULL CHECK (key_n >= 1),
    key_spent            boolean NOT NULL,
    call_started_at      timestamptz,
    claimed_until        timestamptz,
    due_at               timestamptz NOT NULL,
    attempts             integer NOT NULL CHECK (attempts >= 0),
    last_fault           text,
    refused_as           text,
    stripe_customer_id   text UNIQUE CHECK (stripe_customer_id ~ '^cus_[A-Za-z0-9_]{1,200}$'),
    provisioned_at       timestamptz,
    announced_generation integer NOT NULL CHECK (announced_generation >= 0),
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    CONSTRAINT provisioned_with_a_customer
        CHECK ((state = 'provisioned') = (stripe_customer_id IS NOT NULL)),
    CONSTRAINT provisioned_at_a_time
        CHECK ((state = 'provisioned') = (provisioned_at IS NOT NULL)),
    CONSTRAINT provisioned_is_nobodys_work
        CHECK (state = 'provisioning' OR (claimed_until IS NULL AND refused_as IS NULL)),
    CONSTRAINT announced_after_provisioned
        CHECK (announced_generation < generation
               OR (announced_generation = generation AND state = 'provisioned')),
    CONSTRAINT request_is_this_users
        CHECK (create_request ->> 'email' = email
               AND create_request -> 'metadata' ->> 'user_id' = user_id::text),
    CONSTRAINT spent_keys_were_sent
        CHECK (NOT key_spent OR call_started_at IS NOT NULL),
    CONSTRAINT refused_keys_are_spent
        CHECK (refused_as IS NULL OR key_spent)
);
CREATE INDEX user_profiles_due ON user_profiles (due_at)
    WHERE state = 'provisioning' AND refused_as IS NULL;
CREATE INDEX user_profiles_refused ON user_profiles (user_id) WHERE refused_as IS NOT NULL;
CREATE INDEX user_profiles_unannounced ON user_profiles (provisioned_at)
    WHERE state = 'provisioned' AND announced_generation < generation;
CREATE INDEX user_profiles_email ON user_profiles (email);

CREATE TABLE provisioning_steps (
    step_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES user_profiles,
    generation integer NOT NULL CHECK (generation >= 1),
    step       text NOT NULL CHECK (step IN (
        'kept', 'create_sent', 'key_spent', 'refused', 'not_found', 'created', 'adopted',
        'announced', 'reprovision_asked', 'address_replaced')),
    detail     text,
    at         timestamptz NOT NULL
);
CREATE INDEX provisioning_steps_user ON provisioning_steps (user_id, step_id);

CREATE VIEW users_without_stripe_customer AS
SELECT user_id, email, name, created_at, generation, attempts, refused_as, last_fault, updated_at
  FROM user_profiles
 WHERE stripe_customer_id IS NULL;

GRANT SELECT ON alembic_version, users_without_stripe_customer TO customer_provisioner;
GRANT SELECT, INSERT ON provisioning_steps TO customer_provisioner;
GRANT SELECT, INSERT, UPDATE (
    email, name, state, generation, create_request, key_n, key_spent, call_started_at,
    claimed_until, due_at, attempts, last_fault, refused_as, stripe_customer_id, provisioned_at,
    announced_generation, updated_at) ON user_profiles TO customer_provisioner;
"""

DOWN = """
DROP VIEW users_without_stripe_customer;
DROP TABLE provisioning_steps;
DROP TABLE user_profiles;
"""


def upgrade() -> None:
    """Create everything; a step once taken can't be changed by the service."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop everything."""
    for statement in DOWN.split(";\n"):
        if statement.strip():
            op.execute(statement)
