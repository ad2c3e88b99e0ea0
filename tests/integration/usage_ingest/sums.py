"""An hour of one customer and meter: its reports in the ledger, and what Stripe counts in it."""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import text

from nexus_contracts import CountedHour, UsageCounted
from nexus_database import Database
from support.events import provisioned
from usage_ingest.storage.accounts import Accounts

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
METER: Final = "tool_calls"

INSERT: Final = text("""
INSERT INTO usage_reports (report_id, identifier, claim_id, user_id, stripe_customer_id, generation,
    meter, value, dimensions, occurred_at, event_count, state, forwarded_at, answered_at,
    reason)
VALUES (gen_random_uuid(), gen_random_uuid()::text, gen_random_uuid(), :account, :customer, 1,
    :meter, :value, '{}', :at, 1, :state, :forwarded_at, :answered_at, :reason)
""")


async def report(
    database: Database,
    account: UUID,
    customer: str,
    value: int,
    *,
    at: datetime = NOON,
    state: str = "reported",
    answered_at: datetime = NOON,
    meter: str = METER,
) -> None:
    """Put a report into the ledger."""
    values = {
        "account": account,
        "customer": customer,
        "meter": meter,
        "value": value,
        "at": at,
        "state": state,
        "forwarded_at": None if state == "pending" else at,
        "answered_at": None if state in {"pending", "forwarded"} else answered_at,
        "reason": "no_meter" if state in {"rejected", "rejected_later"} else None,
    }
    await database.run(lambda c: c.execute(INSERT, values))


def reading(
    customer: str, *hours: tuple[datetime, float], as_of: datetime, gone: bool = False
) -> UsageCounted:
    """Return a reading of the day around noon."""
    return UsageCounted(
        stripe_customer_id=customer,
        meter=METER,
        start=NOON - 12 * HOUR,
        end=NOON + 12 * HOUR,
        hours=[CountedHour(start=hour, value=value) for hour, value in hours],
        as_of=as_of,
        customer_gone=gone,
    )


async def known(database: Database, generation: int = 1, account: UUID | None = None) -> UUID:
    """Let an account have the customer ``cus_`` and its generation."""
    account = account or uuid4()
    announced = provisioned(account, f"cus_{generation}", generation).data
    await Accounts(database).apply(announced)
    return account
