"""What Stripe's own sums say, and where they differ from the ledger.

``account_customers`` has every customer that an account ever had: reports name customers, and are
found by their accounts. It is filled from the reports, which are all read once for it.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"

OLDEST_SERVED = "0001"

UP = (
    """
CREATE TABLE account_customers (
    stripe_customer_id text NOT NULL,
    account_id         uuid NOT NULL,
    PRIMARY KEY (stripe_customer_id, account_id)
)
""",
    """
CREATE FUNCTION keep_account_customer() RETURNS trigger SECURITY DEFINER
    SET search_path = public, pg_temp LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO account_customers VALUES (NEW.stripe_customer_id, NEW.user_id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$
""",
    """
CREATE TRIGGER keep_account_customer AFTER INSERT OR UPDATE OF stripe_customer_id
    ON billing_accounts FOR EACH ROW EXECUTE FUNCTION keep_account_customer()
""",
    """
INSERT INTO account_customers
SELECT stripe_customer_id, user_id FROM billing_accounts
 UNION
SELECT stripe_customer_id, user_id FROM usage_reports
""",
    # The time of the last reading of a customer and meter.
    """
CREATE TABLE counted_pairs (
    stripe_customer_id text NOT NULL,
    meter              text NOT NULL,
    as_of              timestamptz NOT NULL,
    PRIMARY KEY (stripe_customer_id, meter)
)
""",
    "CREATE INDEX counted_pairs_as_of ON counted_pairs (as_of)",
    # Hours that were read, if Stripe has counted anything in them or the ledger has reports.
    """
CREATE TABLE counted_hours (
    stripe_customer_id text NOT NULL,
    meter              text NOT NULL,
    hour               timestamptz NOT NULL,
    value              double precision NOT NULL,
    lagging            boolean NOT NULL,
    as_of              timestamptz NOT NULL,
    PRIMARY KEY (stripe_customer_id, meter, hour)
)
""",
    # A difference that a later reading does not find is closed, and opened again if it comes back.
    # One that a person has settled stays open, and is opened anew if it changes.
    """
CREATE TABLE differences (
    stripe_customer_id text NOT NULL,
    meter              text NOT NULL,
    hour               timestamptz NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('lower', 'higher', 'gone', 'foreign')),
    expected           bigint NOT NULL,
    at_most            bigint NOT NULL,
    counted            double precision NOT NULL,
    first_seen         timestamptz NOT NULL,
    last_seen          timestamptz NOT NULL,
    closed_at          timestamptz,
    settled_at         timestamptz,
    settlement         text,
    PRIMARY KEY (stripe_customer_id, meter, hour),
    CHECK ((settled_at IS NULL) = (settlement IS NULL))
)
""",
    "CREATE INDEX differences_open ON differences (first_seen) WHERE closed_at IS NULL",
    "GRANT SELECT ON account_customers TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE ON counted_pairs, differences TO usage_ingest",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON counted_hours TO usage_ingest",
)

DOWN = (
    "DROP TABLE differences",
    "DROP TABLE counted_hours",
    "DROP TABLE counted_pairs",
    "DROP TRIGGER keep_account_customer ON billing_accounts",
    "DROP FUNCTION keep_account_customer",
    "DROP TABLE account_customers",
)


def upgrade() -> None:
    """Create the tables; no row of another is written."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them; Stripe's sums can be read again."""
    for statement in DOWN:
        op.execute(statement)
