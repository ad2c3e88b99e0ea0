"""What is on the local Stripe's invoices is what is placed on them, around a period's end."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
import stripe
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from customer_provisioner.metrics import Metrics
from customer_provisioner.stripe.calls import StripeCalls
from customer_provisioner.stripe.subscriptions import SubscriptionApi
from customer_provisioner.subscriptions import Subscription, after_fetch, announcement
from nexus_database import Database
from stripe_emulator.running import DEFAULT_KEY, running_emulator
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.periods import Placement
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.periods import Periods
from usage_ingest.storage.reports import ReportAnswer, Reports
from usage_ingest.storage.subscriptions import Subscriptions

RUNS: Final = "runs"
TOKENS: Final = "tokens"
RULES: Final = BillingRules(RUNS, TOKENS, frozenset({"succeeded"}))

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
WEEK: Final = timedelta(days=7)
END: Final = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 9 * WEEK / 7
THAT_DAY: Final = END - 12 * HOUR

MOMENTS: Final = (-SECOND, 0 * SECOND, SECOND, HOUR - 60 * SECOND, HOUR, 2 * HOUR)
"""Around an end. Usage of each comes at it, and at each later one."""

REPORTED: Final = text("""
SELECT meter, value, occurred_at, coalesce(placement, 'in_period') AS placement
  FROM usage_reports u LEFT JOIN report_placements p USING (report_id, meter, value, occurred_at)
 WHERE u.state = 'reported'
""")


@dataclass
class Ending:
    """When and how the subscription ends, if it does."""

    at: datetime = END
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Of its creation."""
    cancel: Mapping[str, bool] | None = None
    """With what it is canceled at once."""


ENDINGS: Final = {
    "not at all": Ending(),
    "with its period": Ending(fields={"cancel_at_period_end": True}),
    "that day": Ending(THAT_DAY, fields={"cancel_at": int(THAT_DAY.timestamp())}),
    "at once": Ending(THAT_DAY, cancel={}),
    "at once, with an invoice": Ending(THAT_DAY, cancel={"invoice_now": True}),
}


class Account:
    """An account on a clock of the local Stripe: its usage, its subscription and its invoices."""

    def __init__(self, sdk: Any, subscriptions: SubscriptionApi, database: Database) -> None:
        self.id = uuid4()
        self.now = END - WEEK
        self._v1 = sdk.v1
        self._subscriptions = subscriptions
        self._database = database
        self._periods = Periods(database, grace=HOUR, plans=None)
        self._known: Subscription | None = None
        self._clock = self._customer = self._subscription = ""

    async def subscribe(self, fields: Mapping[str, Any]) -> None:
        """Subscribe to tokens, billed by the week; runs are counted, and billed to nobody."""
        v1, frozen = self._v1, {"frozen_time": int(self.now.timestamp())}
        meters = {each.event_name: each.id for each in (await v1.billing.meters.list_async()).data}
        product = await v1.products.create_async({"name": "Tokens"})
        recurring = {"interval": "week", "usage_type": "metered", "meter": meters[TOKENS]}
        price = await v1.prices.create_async(
            {"product": product.id, "currency": "usd", "unit_amount": 1, "recurring": recurring}
        )
        self._clock = (await v1.test_helpers.test_clocks.create_async(frozen)).id
        customer = {"test_clock": self._clock}
        self._customer = (await v1.customers.create_async(customer)).id
        described = {"customer": self._customer, "items": [{"price": price.id}], **fields}
        self._subscription = (await v1.subscriptions.create_async(described)).id
        await Accounts(self._database).apply(provisioned(self.id, self._customer).data)

    async def advance(self, to: datetime) -> None:
        """Let it be later at Stripe."""
        if to > self.now:
            self.now, moment = to, {"frozen_time": int(to.timestamp())}
            await self._v1.test_helpers.test_clocks.advance_async(self._clock, moment)

    async def cancel(self, params: Mapping[str, bool]) -> None:
        """Cancel the subscription at once."""
        await self._v1.subscriptions.cancel_async(self._subscription, params)

    async def hear(self) -> None:
        """Read the subscription at Stripe, and place the reports that there are."""
        fetched = await self._subscriptions.fetch(self._subscription)
        seen = after_fetch(self._known, fetched, None, self.now)
        self._known = replace(seen, account_id=self.id)
        change = announcement(self._known).data
        await Subscriptions(self._database, best=min).apply(change)
        await self._periods.place_again(change)
        await self._periods.place(datetime.now(UTC) + HOUR)

    async def use(self, *times: datetime, tokens: int) -> None:
        """Record runs, each with twice the tokens of the one before, and report them to Stripe."""
        runs = [
            tool_run(self.id, time=at, token_count=tokens << number)
            for number, at in enumerate(times)
        ]
        await Ledger(self._database).record([Entry.of(run, RULES, self.now) for run in runs])
        claims = Claims(self._database, window=10 * SECOND, dimensions=())
        await claims.claim(self.now + HOUR)
        leased = (await Reports(self._database).lease(self.now)).reports
        for report in leased:
            payload = {"stripe_customer_id": self._customer, "value": str(report.value)}
            await self._v1.billing.meter_events.create_async(
                {
                    "event_name": report.meter,
                    "identifier": report.identifier,
                    "payload": payload,
                    "timestamp": int(report.occurred_at.timestamp()),
                }
            )
        ids: list[UUID] = [report.report_id for report in leased]
        answers = [ReportAnswer(id_, "reported", self.now, None, False) for id_ in ids]
        await Reports(self._database).answer(answers)

    async def placed(self, meter: str) -> Mapping[Placement, list[tuple[datetime, int]]]:
        """Return times and values of the reports by where they are said to have ended up."""
        found: dict[Placement, list[tuple[datetime, int]]] = {each: [] for each in Placement}
        for row in await self._database.run(lambda c: c.execute(REPORTED)):
            if row.meter == meter:
                found[Placement(row.placement)].append((row.occurred_at, row.value))
        return found

    async def invoiced(self) -> Mapping[tuple[datetime, datetime], int]:
        """Return the quantity of each period that a final invoice has."""
        listed = await self._v1.invoices.list_async({"subscription": self._subscription})
        assert {each.status for each in listed.data} <= {"paid"}
        return {
            (moment(line.period.start), moment(line.period.end)): line.quantity
            for each in listed.data
            for line in each.lines.data
        }


def moment(seconds: int) -> datetime:
    """Return a time of Stripe's."""
    return datetime.fromtimestamp(seconds, UTC)


@pytest.fixture
async def account(database: Database) -> AsyncIterator[Account]:
    """Return an account without a subscription."""
    async with running_emulator(meters=[RUNS, TOKENS]) as emulator:
        http = stripe.AIOHTTPClient(timeout=10)
        bases: Any = {"api": emulator.url, "meter_events": emulator.url}
        sdk = stripe.StripeClient(DEFAULT_KEY, base_addresses=bases, http_client=http)
        metrics = Metrics(CollectorRegistry())
        async with StripeCalls(DEFAULT_KEY, emulator.url, metrics) as calls:
            yield Account(sdk, SubscriptionApi(calls), database)
        await http.close_async()  # type: ignore[no-untyped-call]  # the SDK left it untyped


@pytest.mark.parametrize("late", [False, True], ids=["heard at once", "heard in the end"])
@pytest.mark.parametrize("how", ENDINGS)
async def test_invoices_have_exactly_what_is_placed_on_them(
    account: Account, how: str, *, late: bool
) -> None:
    """Each report has tokens of its own bits, so that a sum says which reports it has.

    Of a subscription that is canceled at once nobody can see whether its last period is billed.
    """
    ending = ENDINGS[how]
    await account.subscribe(ending.fields)
    tokens = 1
    for place, comes in enumerate(MOMENTS):
        await account.advance(ending.at + comes)
        if comes == 0 * SECOND and ending.cancel is not None:
            await account.cancel(ending.cancel)
        times = [ending.at + occurs for occurs in MOMENTS[: place + 1]]
        await account.use(*times, tokens=tokens)
        tokens <<= len(times)
        if not late or comes == MOMENTS[-1]:
            await account.hear()
    await account.advance(END + WEEK + 2 * HOUR)
    await account.hear()

    placed, invoiced = await account.placed(TOKENS), await account.invoiced()
    billed = placed[Placement.IN_PERIOD] + placed[Placement.IN_GRACE]
    doubtful = placed[Placement.ENDED_EARLY]
    if ending.cancel is not None:
        assert billed == []
        assert doubtful
    if ending.cancel == {"invoice_now": True}:
        billed, doubtful = doubtful, []
    assert {span: within(span, billed) for span in invoiced} == invoiced
    assert sum(invoiced.values()) == sum(value for _, value in billed)
    assert placed[Placement.AFTER_FINALISATION] != []
    assert bool(placed[Placement.NOT_SUBSCRIBED]) is (how != "not at all")
    assert sum(value for each in placed.values() for _, value in each) == tokens - 1
    runs = await account.placed(RUNS)
    assert [each for each in Placement if runs[each]] == [Placement.NOT_SUBSCRIBED]


def within(span: tuple[datetime, datetime], reports: Sequence[tuple[datetime, int]]) -> int:
    """Return the sum of the reports of a period."""
    return sum(value for at, value in reports if span[0] <= at < span[1])
