"""Stripe's sums of customers that have shadow reports alone can be read, and are compared."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from integration.usage_ingest.priced import MINUTE, NOW, USER, PricedLedger
from nexus_contracts import CountedHour, UsageCounted
from nexus_database import Database
from stripe_reporter.counting import Pair
from stripe_reporter.storage.summaries import Summaries
from support.events import tool_run
from usage_ingest.reconciliation import DifferenceKind
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.differences import DifferenceReader
from usage_ingest.windows import whole_hour

OPERATIONS = Path("docs/operations.md").read_text(encoding="utf-8")
HOUR = timedelta(hours=1)


async def shadow_ledger(database: Database) -> PricedLedger:
    """Return a ledger with a customer and a shadow report of three runs."""
    ledger = PricedLedger(database)
    await ledger.customer()
    await ledger.record(*(tool_run(USER, time=MINUTE) for _ in range(3)))
    await ledger.claims(live_from=NOW).claim(NOW)
    return ledger


async def test_operator_can_have_their_sums_read(
    database: Database, clone: Callable[[str], Awaitable[str]]
) -> None:
    """By the commands of docs/operations.md, with the services' own roles; again is harmless."""
    [query] = re.findall(r"<<'SQL' \| psql .*?\n(.*?)\nSQL\n", OPERATIONS, re.DOTALL)
    await shadow_ledger(database)
    reporter = Database(await clone("stripe_reporter"), name="test")

    for _ in range(2):
        written = await database.run(lambda c: c.execute(text(query)))
        for statement in written.scalars().all():
            await reporter.run(partial(AsyncConnection.execute, statement=text(statement)))
    due = await Summaries(reporter, lag=HOUR).lease(NOW + HOUR, 10)
    await reporter.close()

    assert [type(each) for each in due] == [Pair]
    assert (due[0].stripe_customer_id, due[0].meter, due[0].since) == ("cus_1", "runs", MINUTE)


async def test_what_another_way_did_not_report_is_a_difference(database: Database) -> None:
    """It is named with the shadow report, once that way had time for it."""
    await shadow_ledger(database)
    sums, hour = CountedSums(database, lag=HOUR), whole_hour(MINUTE)
    read = UsageCounted(
        stripe_customer_id="cus_1",
        meter="runs",
        start=hour,
        end=hour + HOUR,
        hours=[CountedHour(start=hour, value=2.0)],
        as_of=NOW + HOUR / 2,
    )

    soon = await sums.apply(read)
    later = await sums.apply(read.model_copy(update={"as_of": NOW + 2 * HOUR}))

    assert soon.opened == ()
    assert [(each.kind, each.by) for each in later.opened] == [(DifferenceKind.LOWER, -1)]
    shown = [
        each
        async for each in DifferenceReader(database).open_ones(
            customer=None, meter=None, since=None, settled=False
        )
    ]
    assert [[named.report.state for named in each.reports] for each in shown] == [["shadow"]]
