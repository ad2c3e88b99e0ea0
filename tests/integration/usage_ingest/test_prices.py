"""What a run's tokens cost is read when it is recorded, or later, and once."""

import asyncio
from datetime import timedelta

import pytest

from integration.usage_ingest.priced import FILE_WITH_NEW, NOW, USER, WITH_NEW, PricedLedger
from nexus_database import Database
from nexus_plans.reading import read
from support.events import tool_run
from usage_ingest.entry import Entry
from usage_ingest.explanation import explain
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.late import LatePricing
from usage_ingest.storage.ledger import DetailsAdded, Ledger
from usage_ingest.storage.reader import LedgerReader


@pytest.fixture
async def ledger(database: Database) -> PricedLedger:
    """Return a ledger with one customer."""
    ledger = PricedLedger(database)
    await ledger.customer()
    return ledger


KNOWN = 80 + 10 + 20  # 80 new tokens of input, 20 cached at half the price, 10 of output at twice
NEW = 3 * 110 + 20


async def test_cost_of_tokens_is_on_its_own_meter_with_the_plans_markup(
    ledger: PricedLedger,
) -> None:
    """Half a micro-dollar is rounded up, once for the claim."""
    await ledger.record(ledger.tokens("known", 1), ledger.tokens("known", 2, output_tokens=11))

    await ledger.claims().claim(NOW)

    total = KNOWN + KNOWN + 2
    assert await ledger.reports() == [
        ("micros", (total * 150 + 50) // 100, 2, False),
        ("runs", 2, 2, False),
    ]


async def test_price_and_source_are_frozen_beside_the_run(ledger: PricedLedger) -> None:
    """Another file changes nothing of what was recorded."""
    run = ledger.tokens("known")
    await ledger.record(run)
    await ledger.record(run, plans=WITH_NEW)

    assert await ledger.run_sql(
        "SELECT e.readings, p.model, p.input, p.cached_tokens, p.source"
        "  FROM usage_events e JOIN usage_details d USING (event_id)"
        "  JOIN model_prices p USING (price_id)"
    ) == [({"runs": 1, "@tokens": KNOWN}, "known", 1_000_000, "part", "a list")]


async def test_premium_runs_count_on_the_meter_of_the_accounts_plan(ledger: PricedLedger) -> None:
    """The route is decided when they are recorded, its meter when they are claimed."""
    runs = [tool_run(USER, time=ledger.tokens(None).time, server_id=s) for s in ("browser", "own")]
    await ledger.record(*runs)
    await ledger.subscribe("team")
    await ledger.claims().claim(NOW)

    reports = await ledger.reports()

    assert ("runs", 2, 2, False) in reports
    assert "premium" not in [meter for meter, *_ in reports]


async def test_model_without_a_price_does_not_hold_its_run_back(ledger: PricedLedger) -> None:
    """The run is reported at once, and its cost later, once, by a report that says so."""
    await ledger.record(ledger.tokens("new", 1), ledger.tokens("known", 2))
    await ledger.claims().claim(NOW)
    before = await ledger.reports()

    priced = [await ledger.price_late() for _ in range(2)]
    claimed = [(await ledger.claims().claim_late(NOW)).events for _ in range(2)]

    assert before == [("micros", (KNOWN * 3 + 1) // 2, 1, False), ("runs", 2, 2, False)]
    assert priced == [LatePricing(1, 0, more=False), LatePricing(0, 0, more=False)]
    assert claimed == [1, 0]
    late = ("micros", NEW * 3 // 2, 1, True)
    assert await ledger.reports() == [before[0], late, before[1]]


async def test_late_cost_of_a_route_that_the_file_lost_waits_for_it(ledger: PricedLedger) -> None:
    """It was renamed before the cost was claimed. Charged on no meter, the cost would be lost."""
    file = FILE_WITH_NEW.replace("@tokens", "@costs").replace("tokens: {priced", "costs: {priced")
    renamed = read(file.encode(), "plans.yaml")
    await ledger.record(ledger.tokens("new"))
    await ledger.price_late()

    assert (await ledger.claims(renamed).claim_late(NOW)).events == 0
    assert (await ledger.claims().claim_late(NOW)).reports == 1


async def test_run_is_priced_later_even_before_it_is_claimed(ledger: PricedLedger) -> None:
    """Its event is claimed as it was recorded."""
    await ledger.record(ledger.tokens("new"))
    await ledger.price_late()
    await ledger.claims().claim_late(NOW)

    await ledger.claims().claim(NOW)

    assert await ledger.reports() == [("micros", NEW * 3 // 2, 1, True), ("runs", 1, 1, False)]


async def test_late_reading_waits_for_its_accounts_customer(database: Database) -> None:
    """As its run does."""
    ledger = PricedLedger(database)
    await ledger.record(ledger.tokens("new"))
    await ledger.price_late()
    without = (await ledger.claims().claim_late(NOW)).events
    await ledger.customer()

    assert without == 0
    assert (await ledger.claims().claim_late(NOW)).events == 1


async def test_details_that_come_later_are_priced_later(ledger: PricedLedger) -> None:
    """A run that came in version 1 first has its cost beside it, whether its price is known."""
    runs = [ledger.tokens(model) for model in ("known", "new")]
    first = [tool_run(USER, event_id=run.id, time=run.time) for run in runs]
    await ledger.record(*first)

    results = await ledger.record(*runs)
    await ledger.record(*runs)
    await ledger.price_late()
    await ledger.claims().claim_late(NOW)

    assert results == [DetailsAdded(), DetailsAdded()]
    total = KNOWN + NEW
    assert await ledger.reports() == [("micros", (total * 3 + 1) // 2, 2, True)]


async def test_many_processes_price_and_claim_a_run_once(ledger: PricedLedger) -> None:
    """Whatever their number, and however their rounds meet."""
    runs = [ledger.tokens("new", number / 10) for number in range(200)]
    await ledger.record(*runs)

    async def process() -> None:
        for _ in range(4):
            await ledger.price_late()
            await ledger.claims().claim_late(NOW)

    await asyncio.gather(*(process() for _ in range(4)))

    assert await ledger.run_sql("SELECT sum(value), sum(event_count) FROM usage_reports") == [
        (NEW * 200 * 3 // 2, 200)
    ]


@pytest.mark.parametrize(
    ("model", "changes"),
    [(None, {}), ("known", {"input_tokens": 10**10, "output_tokens": 10**10})],
    ids=["no model", "an impossible cost"],
)
async def test_run_that_no_table_can_price_is_reported_without_a_cost(
    ledger: PricedLedger, model: str | None, changes: dict[str, int]
) -> None:
    """It neither costs nothing nor waits for a price."""
    await ledger.record(ledger.tokens(model, **changes))
    await ledger.claims().claim(NOW)

    assert await ledger.reports() == [("runs", 1, 1, False)]
    assert await ledger.run_sql("SELECT count(*) FROM unpriced_runs") == [(0,)]


async def test_what_is_too_old_for_a_price_is_given_up(ledger: PricedLedger) -> None:
    """Stripe takes nothing that is older than 35 days."""
    await ledger.record(ledger.tokens("new"), ledger.tokens("known", status="failed"))
    later = NOW + timedelta(days=35)

    given_up = await ledger.price_late(now=later)

    assert given_up == LatePricing(0, 1, more=False)
    assert await ledger.price_late() == LatePricing(0, 0, more=False)


async def test_expired_run_lacks_no_price(ledger: PricedLedger) -> None:
    """It is never billed, and nothing is announced."""
    await ledger.record(ledger.tokens("new"), now=NOW + timedelta(days=40))

    assert await ledger.run_sql("SELECT count(*) FROM unpriced_runs") == [(0,)]


async def test_without_plans_nothing_is_read_of_tokens(database: Database) -> None:
    """Everything is as it was before there were plans."""
    ledger = PricedLedger(database)
    await ledger.customer()
    rules = BillingRules("runs", None, frozenset({"succeeded"}))
    run = ledger.tokens("new", server_id="browser")

    await Ledger(database).record([Entry.of(run, rules, NOW)])

    assert await ledger.run_sql("SELECT readings FROM usage_events") == [({"runs": 1},)]


async def test_explain_says_by_what_price_and_when(ledger: PricedLedger) -> None:
    """An operator who is asked for one run's cost finds its source."""
    known, new = ledger.tokens("known", 1), ledger.tokens("new", 2)
    await ledger.record(known, new)
    await ledger.claims().claim(NOW)
    reader = LedgerReader(ledger.database)

    async def explained(run: ToolRun) -> str:
        history = await reader.history(run.id, NOW, timedelta(hours=1), None)
        assert history is not None
        return "\n".join(explain(history))

    of_known, lacking = await explained(known), await explained(new)
    await ledger.price_late()
    await ledger.claims().claim_late(NOW)
    late = await explained(new)

    assert "priced as known from 2020-01-01T00:00:00Z on, by a list" in of_known
    assert f"{KNOWN} on @tokens" in of_known
    assert "its model had no price: it is priced once the price table" in lacking
    assert "priced as new from 2020-01-01T00:00:00Z on, by another list" in late
    assert f"{NEW} micro-USD, claimed" in late
    assert f"{NEW * 3 // 2} on micros with 1 runs" in late
