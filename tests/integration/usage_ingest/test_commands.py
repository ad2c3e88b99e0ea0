"""The commands as an operator types them, on a real database and broker."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from integration.usage_ingest.command import command, settings_of
from nexus_database import Database
from nexus_messaging.topology import USAGE_RECORDED_QUEUE
from support.commands import in_a_pipe, on_a_terminal
from support.events import provisioned, second_version, tool_run
from support.vhost import Vhost
from usage_ingest import status
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage import status as stored_status
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reader import LedgerReader
from usage_ingest.storage.reports import ReportAnswer, Reports
from usage_ingest.storage.status import StatusReader

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)


async def forwarded(database: Database) -> tuple[ToolRun, Reports, ReportAnswer]:
    """Make a report of one run, forwarded an hour ago; return also an answer to it."""
    run = tool_run(time=NOW - timedelta(hours=2))
    await Accounts(database).apply(provisioned(run.data.user_id, "cus_1").data)
    await Ledger(database).record([Entry.of(run, RULES, NOW)])
    await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)
    reports = Reports(database)
    [report] = (await reports.lease(NOW)).reports
    earlier = NOW - timedelta(hours=1, minutes=1)
    await reports.settle_lease(earlier, forwarded=[report.report_id], failed=[])
    return run, reports, ReportAnswer(report.report_id, "reported", NOW, None, ever_unknown=False)


async def test_status_shows_counts_and_fails_while_usage_is_late(
    database: Database,
) -> None:
    """A script has the exit code and the same rows as a person."""
    _, reports, answer = await forwarded(database)
    early = tool_run(time=NOW - timedelta(hours=3))
    await Ledger(database).record([Entry.of(early, RULES, NOW)])

    table = await command(database, "status", "--late-after", "86400")
    late = await command(database, "status", "--json", "--late-after", "0")
    await reports.answer([answer])
    done = await command(database, "status", "--late-after", "0")

    rows = [line.split() for line in table[1].splitlines()]
    assert table[0] == 0
    assert rows[0] == ["of", "state", "meter", "number", "sum", "oldest"]
    assert rows[1][:5] == ["events", "waiting", "tool_call_executed", "1", "1"]
    assert rows[2][:5] == ["reports", "forwarded", "tool_call_executed", "1", "1"]
    assert late[0] == 1
    facts = json.loads(late[1])
    assert facts["degraded"] is True
    assert facts["reports"][0].keys() == {
        *("state", "meter", "number", "value", "oldest", "total", "more")
    }
    assert done[0] == 0
    assert ["reports", "reported", "tool_call_executed", "1", "1"] in [
        line.split() for line in done[1].splitlines()
    ]


async def test_status_shows_rejected_reports_and_sums_over_days(
    database: Database,
) -> None:
    """Reported ones of a day by default; a rejected one until a person has settled it."""
    for state, ago in (("rejected", 0), ("reported", 0), ("reported", 3)):
        _, reports, answer = await forwarded(database)
        reason = "refused_by_stripe" if state == "rejected" else None
        at = NOW - timedelta(days=ago)
        await reports.answer([replace(answer, state=state, reason=reason, at=at)])

    day = json.loads((await command(database, "status", "--json"))[1])
    week = json.loads((await command(database, "status", "--json", "--days", "7"))[1])

    assert {(each["state"], each["value"]) for each in day["reports"]} == {
        ("rejected", 1),
        ("reported", 1),
    }
    assert {(each["state"], each["value"]) for each in week["reports"]} == {
        ("rejected", 1),
        ("reported", 2),
    }


async def test_counts_of_a_large_ledger_are_cut_off_unless_all_are_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator has an answer at once; finance has the exact sums with `--days`."""
    for _ in range(2):
        _, reports, answer = await forwarded(database)
        await reports.answer([answer])
    for _ in range(3):
        await Ledger(database).record([Entry.of(tool_run(), RULES, NOW)])
    for module in (stored_status, status):
        monkeypatch.setattr(module, "MAX_SUMMED", 2)
    monkeypatch.setattr(stored_status, "MAX_REPORTED", 1)
    since = NOW - timedelta(days=1)

    cut = await StatusReader(database).counts(since)
    exact = await StatusReader(database).counts(since, all_reported=True)

    [waiting], [newest], [all_of_them] = cut.events, cut.reports, exact.reports
    assert (waiting.number, waiting.total, waiting.more) == (2, 3, True)
    assert (newest.number, newest.value, newest.more) == (1, 1, True)
    assert (all_of_them.number, all_of_them.value, all_of_them.more) == (2, 2, False)


async def test_status_on_a_terminal_has_readable_ages_and_colours(
    database: Database,
) -> None:
    """Degraded is said in words and in colour."""
    await forwarded(database)

    shown = await on_a_terminal("usage_ingest", "status", **settings_of(database))
    plain = await on_a_terminal("usage_ingest", "status", NO_COLOR="1", **settings_of(database))

    assert (shown.code, plain.code) == (0, 0)
    late = await on_a_terminal(
        "usage_ingest", "status", "--late-after", "0", **settings_of(database)
    )
    assert late.code == 1
    assert "✗ oldest unanswered usage" in late.text
    assert "degraded" in late.text
    assert "\x1b[1;31m" in late.raw
    assert "forwarded" in shown.text
    assert shown.coloured
    assert not plain.coloured


async def test_explain_shows_each_step_or_why_a_run_is_not_billed(
    database: Database,
) -> None:
    """In sentences that need no knowledge of the code."""
    run, reports, answer = await forwarded(database)
    await reports.answer([answer])
    failed = tool_run(status="failed")
    early = second_version(tool_run(), model="large", cached_tokens=9)
    await Ledger(database).record([Entry.of(each, RULES, NOW) for each in (failed, early)])

    billed = await command(database, "explain", str(run.id))
    unbilled = await command(database, "explain", str(failed.id))
    waiting = await command(database, "explain", str(early.id))
    unknown = await command(database, "explain", str(uuid4()))

    assert billed[0] == 0
    assert "1 on tool_call_executed" in billed[1]
    assert "accepted by Stripe" in billed[1]
    assert "details" not in billed[1]
    assert "model large, 9 cached tokens; nothing is billed by them" in waiting[1]
    assert "not_billable" in unbilled[1]
    assert "no Stripe customer yet" in waiting[1]
    assert unknown[0] == 1
    assert "not in the ledger" in unknown[2]


async def test_replay_forwards_unanswered_reports_with_execute(
    database: Database, vhost: Vhost
) -> None:
    """Without it, it only counts. Answered and younger reports are not forwarded."""
    _, reports, answer = await forwarded(database)
    url = vhost.url("usage-ingest")

    dry = await command(database, "replay", amqp_url=url)
    young = await command(database, "replay", "--older-than", "7200", "--execute", amqp_url=url)
    done = await command(database, "replay", "--execute", amqp_url=url)
    depth = await vhost.depth(USAGE_RECORDED_QUEUE)
    await reports.answer([answer])
    after = await command(database, "replay", amqp_url=url)

    assert dry[1].startswith("1 reports would be")
    assert young[1].startswith("0 reports were")
    assert done[1].startswith("1 reports were")
    assert depth == 1
    assert after[1].startswith("0 reports would be")


async def test_replay_on_a_terminal_shows_its_progress(database: Database, vhost: Vhost) -> None:
    """A bar, with the total that was counted first."""
    await forwarded(database)
    await forwarded(database)

    shown = await on_a_terminal(
        "usage_ingest",
        "replay",
        "--execute",
        **settings_of(database, vhost.url("usage-ingest")),
    )

    assert shown.code == 0
    assert "2/2" in shown.text
    assert "2 reports were forwarded again" in shown.text
    assert await vhost.depth(USAGE_RECORDED_QUEUE) == 2


async def test_replay_reads_every_report_once_over_pages(database: Database) -> None:
    """Several have the same time, and pages end between them."""
    runs = [tool_run(time=NOW - timedelta(hours=2, seconds=n)) for n in range(5)]
    for run in runs:
        await Accounts(database).apply(provisioned(run.data.user_id, "cus_1").data)
    await Ledger(database).record([Entry.of(run, RULES, NOW) for run in runs])
    await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)
    reports = Reports(database)
    leased = [each.report_id for each in (await reports.lease(NOW)).reports]
    await reports.settle_lease(NOW - timedelta(hours=2), forwarded=leased, failed=[])

    reader = LedgerReader(database)
    found = [each.report_id async for each in reader.unanswered(NOW, page=2)]

    assert sorted(found) == sorted(leased)
    assert await reader.unanswered_number(NOW) == 5


async def test_unreachable_database_is_one_line(database: Database) -> None:
    """No traceback, no address, and exit code 1."""
    settings = settings_of(database) | {"DATABASE_URL": "postgresql://x:s3cret@127.0.0.1:1/d"}

    shown = await in_a_pipe("usage_ingest", "status", **settings)

    assert shown.code == 1
    assert shown.errors == ("usage-ingest: the database is not reachable: ConnectionRefusedError\n")
