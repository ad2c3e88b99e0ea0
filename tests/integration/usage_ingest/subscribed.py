"""A subscription of an account, with a month's period that ends in the days to come."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from integration.usage_ingest.sums import HOUR, METER
from nexus_contracts import SubscriptionChanged, SubscriptionItem
from nexus_database import Database
from usage_ingest.storage.periods import Periods
from usage_ingest.storage.subscriptions import Subscriptions

DAY: Final = timedelta(days=1)

# Accepted after the migration, which places nothing that is older.
END: Final = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + 10 * DAY
START: Final = END - 31 * DAY
GRACE: Final = HOUR


async def subscribe(database: Database, account: UUID, **fields: Any) -> None:
    """Let an account's subscription of the month become known."""
    described = {
        "subscription_id": "sub_1",
        "account_id": account,
        "stripe_customer_id": "cus_1",
        "revision": 1,
        "status": "active",
        "items": [SubscriptionItem(price_id="price_1", product_id="prod_1", meter=METER)],
        "period_start": START,
        "period_end": END,
        "plan_since": START,
        "as_of": START,
    }
    change = SubscriptionChanged(**{**described, **fields})
    await Subscriptions(database, best=min).apply(change)
    await Periods(database, grace=GRACE, plans=None).place_again(change)
