"""The commands for people, as they are typed, on a real database and broker."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from local_stack.catalogue import base_environment
from nexus_database import Database
from nexus_messaging.topology import USAGE_RECORDED_QUEUE
from rig.events import provisioned, tool_run
from rig.vhost import Vhost
from usage_ingest.accounts import Accounts
from usage_ingest.claims import Claims
from usage_ingest.ledger import Entry, Ledger
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.reports import Answer, Reports

RULES = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)


async def command(database: Database, *arguments: str, amqp_url: str = "") -> tuple[int, str, str]:
    """Run `usage-ingest` and return its exit code, output and errors."""
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "usage_ingest",
        *arguments,
        env={**base_environment(), "DATABASE_URL": url, "AMQP_URL": amqp_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def forwarded(database: Database) -> tuple[ToolRun, Reports, Answer]:
    """Leave one run in a report that was forwarded an hour ago; return the answer it may get."""
    run = tool_run(time=NOW - timedelta(hours=2))
    await Accounts(database).apply(provisioned(run.data.user_id, "cus_1").data)
    await Ledger(database).record([Entry.of(run, RULES, NOW)])
    await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)
    reports = Reports(database)
    [report] = await reports.lease(NOW)
    earlier = NOW - timedelta(hours=1, minutes=1)
    await reports.settle_lease(earlier, forwarded=[report.report_id], failed=[])
    return run, reports, Answer(report.report_id, "reported", NOW, None, ever_unknown=False)


async def test_status_tells_how_things_stand_and_fails_while_usage_is_late(
    database: Database,
) -> None:
    """A script can act on the exit code; a person reads the table."""
    _, reports, answer = await forwarded(database)

    table = await command(database, "status")
    late = await command(database, "status", "--json", "--late-after", "0")
    await reports.answer([answer])
    done = await command(database, "status", "--late-after", "0")

    assert table[0] == 0
    assert "forwarded" in table[1]
    assert late[0] == 1
    assert json.loads(late[1])["degraded"] is True
    assert done[0] == 0


async def test_explain_tells_each_step_and_why_something_is_not_billed(
    database: Database,
) -> None:
    """Support reads the answer without reading code."""
    run, reports, answer = await forwarded(database)
    await reports.answer([answer])
    failed, early = tool_run(status="failed"), tool_run()
    await Ledger(database).record([Entry.of(each, RULES, NOW) for each in (failed, early)])

    billed = await command(database, "explain", str(run.id))
    unbilled = await command(database, "explain", str(failed.id))
    waiting = await command(database, "explain", str(early.id))
    stranger = await command(database, "explain", str(uuid4()))

    assert billed[0] == 0
    assert "1 on tool_call_executed" in billed[1]
    assert "counted by Stripe" in billed[1]
    assert "not_billable" in unbilled[1]
    assert "no Stripe customer yet" in waiting[1]
    assert stranger[0] == 1
    assert "not in the ledger" in stranger[2]


async def test_replay_forwards_again_only_what_was_never_answered_and_only_if_told(
    database: Database, vhost: Vhost
) -> None:
    """Dry by default; what is answered or too young is left alone."""
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
