"""The journal of calls to Stripe: one row for each report, written before and after each call."""

from alembic import op

revision = "0001"
down_revision = None

_TABLE = """
CREATE TABLE meter_calls (
    identifier text PRIMARY KEY CHECK (length(identifier) BETWEEN 1 AND 100),
    report_id uuid NOT NULL UNIQUE,
    stripe_customer_id text NOT NULL,
    meter text NOT NULL,
    value bigint NOT NULL CHECK (value > 0),
    occurred_at timestamptz NOT NULL,
    request_digest bytea NOT NULL CHECK (octet_length(request_digest) = 32),
    state text NOT NULL CHECK (state IN ('calling', 'unknown', 'refused', 'accepted')),
    key_n integer NOT NULL CHECK (key_n >= 1),
    attempts integer NOT NULL CHECK (attempts >= 1),
    started_at timestamptz NOT NULL,
    first_unknown_at timestamptz,
    answered_at timestamptz,
    answer text,
    reason text,
    CONSTRAINT answered_unless_calling
        CHECK ((state = 'calling') = (answered_at IS NULL)
               AND (answered_at IS NULL) = (answer IS NULL)),
    CONSTRAINT unknown_since_when CHECK (state <> 'unknown' OR first_unknown_at IS NOT NULL),
    CONSTRAINT reason_only_if_refused CHECK (reason IS NULL OR state = 'refused')
)
"""

# What a CHECK can't say, as it sees no earlier row. The fence rests on the first two: forgetting
# either would allow a second charge.
_RULES = """
CREATE FUNCTION meter_calls_only_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'accepted' AND NEW.state <> 'accepted' THEN
        RAISE EXCEPTION 'an accepted report stays accepted' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.first_unknown_at IS NOT NULL
       AND NEW.first_unknown_at IS DISTINCT FROM OLD.first_unknown_at THEN
        RAISE EXCEPTION 'first_unknown_at never changes' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.key_n < OLD.key_n OR NEW.attempts < OLD.attempts THEN
        RAISE EXCEPTION 'key_n and attempts only rise' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$
"""

_TRIGGER = """
CREATE TRIGGER only_forward BEFORE UPDATE ON meter_calls
    FOR EACH ROW EXECUTE FUNCTION meter_calls_only_forward()
"""

# For those who look for what is stuck; accepted rows, nearly all, are not in it.
_INDEX = "CREATE INDEX meter_calls_open ON meter_calls (started_at) WHERE state <> 'accepted'"

# The report's facts can't be updated, and nothing can be deleted: the journal is the only memory of
# what may have been charged.
_GRANTS = (
    "GRANT SELECT, INSERT ON meter_calls TO stripe_reporter",
    """
    GRANT UPDATE (request_digest, state, key_n, attempts, started_at, first_unknown_at,
                  answered_at, answer, reason)
    ON meter_calls TO stripe_reporter
    """,
    "GRANT SELECT ON alembic_version TO stripe_reporter",
)


def upgrade() -> None:
    """Create the journal."""
    for statement in (_TABLE, _RULES, _TRIGGER, _INDEX, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    """Drop the journal, and with it the protection against charging twice."""
    op.execute("DROP TABLE meter_calls")
    op.execute("DROP FUNCTION meter_calls_only_forward")
