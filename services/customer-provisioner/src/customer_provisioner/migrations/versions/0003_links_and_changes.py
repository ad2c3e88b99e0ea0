"""Links to customers that exist at Stripe, users without an address, and changes of users.

A user to be linked has the state ``linking``. Processes of 0.1.0 know neither this state nor links:
they leave the user alone, where they would create a second customer for one that is
``provisioning``. They may also meet a user without an address, whose customer they create without.

The constraints are loosened, and what is there satisfied stricter ones: they stay NOT VALID,
because a validation in this transaction would block all reads.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OLDEST_SERVED = "0001"

UP = """
ALTER TABLE user_profiles ADD COLUMN link_to text;
-- squawk-ignore ban-drop-not-null
ALTER TABLE user_profiles ALTER COLUMN email DROP NOT NULL;

-- squawk-ignore ban-drop-constraint
ALTER TABLE user_profiles DROP CONSTRAINT user_profiles_state_check;
ALTER TABLE user_profiles ADD CONSTRAINT known_state
    CHECK (state IN ('provisioning', 'linking', 'provisioned')) NOT VALID;
-- squawk-ignore ban-drop-constraint
ALTER TABLE user_profiles DROP CONSTRAINT provisioned_is_nobodys_work;
ALTER TABLE user_profiles ADD CONSTRAINT provisioned_needs_no_work
    CHECK (state <> 'provisioned' OR (claimed_until IS NULL AND refused_as IS NULL)) NOT VALID;
ALTER TABLE user_profiles ADD CONSTRAINT linking_to_a_customer
    CHECK ((state = 'linking') = (link_to IS NOT NULL)) NOT VALID;

-- squawk-ignore ban-drop-constraint
ALTER TABLE provisioning_steps DROP CONSTRAINT provisioning_steps_step_check;
ALTER TABLE provisioning_steps ADD CONSTRAINT known_step
    CHECK (step IN (
        'kept', 'create_sent', 'key_spent', 'refused', 'not_found', 'created', 'adopted',
        'announced', 'reprovision_asked', 'address_replaced', 'link_asked', 'linked',
        'link_refused', 'change_sent', 'change_refused')) NOT VALID;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX user_profiles_unserved ON user_profiles (due_at)
    WHERE state <> 'provisioned' AND refused_as IS NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX user_profiles_link_to ON user_profiles (link_to) WHERE link_to IS NOT NULL;

CREATE TABLE user_changes (
    user_id       uuid PRIMARY KEY,
    email         text,
    email_as_of   timestamptz,
    name          text,
    name_as_of    timestamptz,
    revision      integer NOT NULL CHECK (revision >= 1),
    waiting_since timestamptz,
    claimed_until timestamptz,
    due_at        timestamptz NOT NULL,
    last_fault    text,
    refused_as    text,
    CONSTRAINT fields_have_their_times CHECK (
        (email IS NULL) = (email_as_of IS NULL) AND (name IS NULL) = (name_as_of IS NULL)),
    CONSTRAINT refused_changes_wait CHECK (refused_as IS NULL OR waiting_since IS NOT NULL)
);
CREATE INDEX user_changes_due ON user_changes (due_at)
    WHERE waiting_since IS NOT NULL AND refused_as IS NULL;
CREATE INDEX user_changes_email ON user_changes (email);

GRANT UPDATE (link_to) ON user_profiles TO customer_provisioner;
GRANT SELECT, INSERT, UPDATE (
    email, email_as_of, name, name_as_of, revision, waiting_since, claimed_until, due_at,
    last_fault, refused_as) ON user_changes TO customer_provisioner;
"""

DOWN = """
DROP TABLE user_changes;
DROP INDEX user_profiles_unserved;
DROP INDEX user_profiles_link_to;

DELETE FROM provisioning_steps
 WHERE step IN ('link_asked', 'linked', 'link_refused', 'change_sent', 'change_refused');
ALTER TABLE provisioning_steps DROP CONSTRAINT known_step;
ALTER TABLE provisioning_steps ADD CONSTRAINT provisioning_steps_step_check
    CHECK (step IN (
        'kept', 'create_sent', 'key_spent', 'refused', 'not_found', 'created', 'adopted',
        'announced', 'reprovision_asked', 'address_replaced'));

ALTER TABLE user_profiles DROP CONSTRAINT linking_to_a_customer;
ALTER TABLE user_profiles DROP CONSTRAINT provisioned_needs_no_work;
ALTER TABLE user_profiles DROP CONSTRAINT known_state;
DELETE FROM provisioning_steps
 WHERE user_id IN (SELECT user_id FROM user_profiles WHERE state = 'linking' OR email IS NULL);
DELETE FROM user_profiles WHERE state = 'linking' OR email IS NULL;
ALTER TABLE user_profiles ADD CONSTRAINT user_profiles_state_check
    CHECK (state IN ('provisioning', 'provisioned'));
ALTER TABLE user_profiles ADD CONSTRAINT provisioned_is_nobodys_work
    CHECK (state = 'provisioning' OR (claimed_until IS NULL AND refused_as IS NULL));
ALTER TABLE user_profiles ALTER COLUMN email SET NOT NULL;
ALTER TABLE user_profiles DROP COLUMN link_to;
"""


def upgrade() -> None:
    """Loosen what 0.1.0 demands of a row, and add to it; no row is written."""
    for statement in UP.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Drop all of it, and the users that 0.1.0 could not read: publish them again."""
    for statement in DOWN.split(";\n"):
        if statement.strip():
            op.execute(statement)
