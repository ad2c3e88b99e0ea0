"""Usage of before a moment becomes reports that are never sent, however late it comes."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from integration.usage_ingest.lost_ledger import MINUTE as MINUTE_OF_LOST
from integration.usage_ingest.lost_ledger import LostLedger, output, run
from integration.usage_ingest.priced import MINUTE, NOW, USER, PricedLedger
from nexus_database import Database
from support.commands import in_a_pipe
from support.databases import url_of
from support.events import provisioned, tool_run
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.reports import ReportAnswer, Reports

MOMENT = MINUTE + timedelta(seconds=5)
"""In the middle of a window."""


def at(second: float, **fields: Any) -> Any:
    """Return a run at a second around the moment."""
    return tool_run(USER, time=MOMENT + timedelta(seconds=second), **fields)


async def states(ledger: PricedLedger, meter: str = "runs") -> Sequence[tuple[Any, ...]]:
    """Return how much of a meter is reported in which state."""
    return await ledger.run_sql(
        "SELECT state, sum(value)::int FROM usage_reports WHERE meter = :meter"
        " GROUP BY state ORDER BY state",
        meter=meter,
    )


async def ledger_of(database: Database) -> PricedLedger:
    """Return a ledger with a customer whose plan counts unique tools."""
    ledger = PricedLedger(database)
    await ledger.customer()
    await ledger.subscribe("team")
    return ledger


async def test_window_is_split_at_the_moment(database: Database) -> None:
    """What ended at the moment is live; only that is forwarded."""
    ledger = await ledger_of(database)
    await ledger.record(at(-2), at(-0.000001), at(0), at(1), at(2))

    claimed = await ledger.claims(live_from=MOMENT).claim(NOW)

    assert (claimed.events, claimed.reports, claimed.shadow) == (5, 1, 2)
    assert await states(ledger) == [("pending", 3), ("shadow", 2)]
    leased = await Reports(database).lease(NOW)
    assert [(each.value, each.occurred_at) for each in leased.reports] == [(3, MOMENT)]


async def test_late_usage_is_what_its_time_says(database: Database) -> None:
    """A backlog, late events, late prices: they are claimed long after the moment."""
    ledger = await ledger_of(database)
    await ledger.record(at(-1), at(1))
    await ledger.claims(live_from=MOMENT).claim(NOW)

    before, after = MOMENT - timedelta(seconds=1), MOMENT + timedelta(seconds=1)
    await ledger.record(
        at(-3600), ledger.tokens("new", time=before), ledger.tokens("new", time=after)
    )
    await ledger.price_late()
    claims = ledger.claims(live_from=MOMENT)
    await claims.claim(NOW)
    late = await claims.claim_late(NOW)

    assert (late.reports, late.shadow) == (1, 1)
    assert await states(ledger) == [("pending", 2), ("shadow", 3)]
    [(_, live), (_, shadow)] = await states(ledger, "micros")
    assert live == shadow > 0


async def test_tool_first_used_before_the_moment_is_not_charged_after_it(
    database: Database,
) -> None:
    """The way before this one has charged it in that period; a tool that is new is charged."""
    ledger = await ledger_of(database)
    moment = datetime.fromisoformat("2026-11-15T12:00:00+00:00")
    now = moment + timedelta(days=1)
    old = tool_run(USER, time=moment - timedelta(seconds=1), tool_name="old")
    again = tool_run(USER, time=moment + timedelta(seconds=1), tool_name="old")
    new = tool_run(USER, time=moment + timedelta(seconds=1), tool_name="new")
    await ledger.record(old, again, new, now=now)

    await ledger.claims(live_from=moment).claim(now)

    assert await states(ledger, "tools") == [("pending", 1), ("shadow", 1)]


async def test_moving_the_moment_changes_no_report(database: Database) -> None:
    """A restart with another setting decides about what is not claimed yet alone."""
    ledger = await ledger_of(database)
    await ledger.record(at(-1), at(1))
    await ledger.claims(live_from=MOMENT).claim(NOW)
    first = await ledger.run_sql("SELECT report_id, state FROM usage_reports ORDER BY report_id")

    await ledger.record(at(-3), at(3))
    earlier = await ledger.claims(live_from=MOMENT - timedelta(seconds=4)).claim(NOW)
    await ledger.record(at(-2), at(2))
    later = await ledger.claims(live_from=MOMENT + timedelta(seconds=4)).claim(NOW)

    assert (earlier.reports, earlier.shadow) == (1, 0)
    assert (later.reports, later.shadow) == (0, 1)
    now = await ledger.run_sql("SELECT report_id, state FROM usage_reports")
    assert set(first) <= set(now)


async def test_no_answer_moves_a_shadow_report(database: Database) -> None:
    """Nor does a new customer: it was never sent, and its amount stays usage of the account."""
    ledger = await ledger_of(database)
    await ledger.record(at(-1))
    await ledger.claims(live_from=MOMENT).claim(NOW)

    [(report_id,)] = await ledger.run_sql(
        "SELECT report_id FROM usage_reports WHERE meter = 'runs'"
    )
    answers = [
        ReportAnswer(report_id, state, NOW, reason, ever_unknown=False)
        for state, reason in (("reported", None), ("rejected", "no_such_customer"))
    ]
    applied = await Reports(database).answer(answers)
    await Accounts(database).apply(provisioned(USER, "cus_2", 2).data)
    swept = await Accounts(database).sweep(NOW)

    assert (applied.states, applied.unknown) == ({}, set())
    assert (swept.released, swept.superseded) == (0, 0)
    assert await states(ledger) == [("shadow", 1)]
    amounts = await ledger.run_sql("SELECT meter, value FROM hourly_amounts ORDER BY meter")
    assert amounts == [("runs", 1), ("tools", 1)]


async def test_restored_usage_is_what_it_was(lost: LostLedger) -> None:
    """The journal has live reports alone; they take no shadow usage of their window."""
    moment = MINUTE_OF_LOST + timedelta(seconds=5)
    before, after = [run(3), run(4)], [run(5), run(6)]
    lost.back_up()
    await lost.record(*before, *after)
    await lost.claim(moment)
    calls = await lost.lose()
    await lost.record(*before, after[0])
    setting = {"REPORTING_LIVE_FROM": moment.isoformat()}

    fault = "events missing, to be published again: 1 (cus_one 1)"
    assert await lost.adopt(calls, "--execute", **setting) == output(1, "1 0 0 1 1", fault)
    await lost.record(after[1])
    assert await lost.adopt(calls, "--execute", **setting) == output(0, "1 1 0 0 1")
    assert await lost.claim(moment) == 2

    [live, shadow] = await lost.reports()
    assert (live[1:], shadow[1:]) == (("reported", 1, 2), ("shadow", 1, 2))
    assert await lost.disagreeing() == []


async def test_commands_name_shadow_reports(database: Database) -> None:
    """Nobody takes them for usage that waits, or that Stripe refused."""
    ledger = await ledger_of(database)
    event = at(-1)
    await ledger.record(event)
    await ledger.claims(live_from=MOMENT).claim(NOW)
    settings = {"DATABASE_URL": url_of(database)}

    explained = await in_a_pipe("usage_ingest", "explain", str(event.id), **settings)
    status = await in_a_pipe("usage_ingest", "status", **settings)

    assert "shadow: never sent (REPORTING_LIVE_FROM): reported by the way before this one" in (
        explained.raw
    )
    assert "invoice" not in explained.raw
    assert status.code == 0
    assert "reported by the way before this one; never sent" in status.raw
