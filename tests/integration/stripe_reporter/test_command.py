"""The command line as an operator runs it, in a process of its own."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from integration.stripe_reporter.bench import KEY, METER, Bench, add_meters
from integration.stripe_reporter.test_rejected_later import (
    CODE,
    error_reports,
    hear,
    outcomes,
    reject_later,
)
from local_stack.catalogue import base_environment
from local_stack.ports import free_ports
from nexus_broker_admin.inspection import NOT_COMPARED
from nexus_contracts import CallRecord, CallRecordsEnd, read_call_record
from nexus_stripe.meters import DISPLAY_NAME
from stripe_emulator.faults import Fault
from stripe_emulator.keys import KeyState
from stripe_reporter.checks import NOT_HEARD
from stripe_reporter.fence import Call, calling
from stripe_reporter.reports import Report
from stripe_reporter.storage.journal import insert_calls
from support.leak_check import leaks, secrets_in
from support.waiting import eventually

SAY: Final = text("""
UPDATE meter_calls
   SET state = 'accepted', answer = 'accepted', answered_at = :answered_at,
       rejected_later_at = :marked_at,
       rejected_later = CASE WHEN CAST(:marked_at AS timestamptz) IS NOT NULL THEN 'no_meter' END
 WHERE identifier = :id
""")
ANNOUNCE: Final = text("""
INSERT INTO late_rejections (identifier, key_n, code, heard_at, verdict, announced_at)
VALUES (:id, 1, 'no_meter', :heard_at, 'rejected', :announced_at)
""")


def settings_of(bench: Bench) -> dict[str, str]:
    """Return the settings of ``bench``."""
    return {
        "AMQP_URL": bench.vhost.url("stripe-reporter"),
        "DATABASE_URL": bench.database_url,
        "STRIPE_SECRET_KEY": KEY,
        "STRIPE_API_BASE": bench.emulator.url,
    }


async def start(bench: Bench, *arguments: str, **settings: str) -> Process:
    """Start ``stripe-reporter`` with the settings of ``bench``."""
    (port,) = free_ports(None)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stripe_reporter", *arguments),
        env={**base_environment(), **settings_of(bench), "HTTP_PORT": str(port), **settings},
        stdout=PIPE,
        stderr=PIPE,
    )


async def end(bench: Bench, process: Process) -> str:
    """Wait for the end of a process; return all it printed, which holds no secret."""
    printed, complained = await asyncio.wait_for(process.communicate(), 60)
    output = (printed + complained).decode()
    assert leaks({"output": output}, secrets_in(settings_of(bench))) == []
    return output


async def run(bench: Bench, *arguments: str, **settings: str) -> tuple[int | None, str]:
    """Run a command to its end; return its exit code and all it printed."""
    process = await start(bench, *arguments, **settings)
    output = await end(bench, process)
    return process.returncode, output


async def test_check_finds_nothing_wrong_on_a_sound_bench(bench: Bench) -> None:
    """Broker, database, key, clock and meter are each named and fine."""
    code, printed = await run(bench, "check")

    assert printed.splitlines() == [
        "settings: ok",
        "broker: ok",
        f"topology: {NOT_COMPARED}",
        "database: ok",
        "stripe key (test mode): ok",
        "clock: ok",
        f"meter {METER}: ok",
        "Stripe's sums: ok",
        "Stripe's events: ok",
        f"webhooks: {NOT_HEARD}",
    ]
    assert code == 0


async def test_check_notes_the_rights_that_the_key_lacks(bench: Bench) -> None:
    """Reports are sent without them, so the exit code is 0."""
    bench.account.keys.put(KEY, KeyState.RESTRICTED, frozenset({"rak_billing_meter_read"}))
    forbidden = {"kind": "status", "status": 403, "method": "GET", "times": 1}
    bench.account.faults.add(
        Fault.read({**forbidden, "path_prefix": "/v1/billing/meters/mtr_check"})
    )

    code, printed = await run(bench, "check", STRIPE_WEBHOOK_SECRET="whsec_test")

    lines = printed.splitlines()
    assert (
        "Stripe's sums: the key lacks the right to read billing meters and their event summaries:"
        " nothing is compared with them"
    ) in lines
    assert (
        "Stripe's events: the key lacks the right to read events: what Stripe rejects later is"
        " seen in its sums alone"
    ) in lines
    assert "webhooks: ok" in lines
    assert code == 0


async def test_check_names_a_refused_key_without_showing_it(bench: Bench) -> None:
    """The operator learns that it is the key, and the key stays secret."""
    bench.account.keys.put(KEY, KeyState.REVOKED)

    code, printed = await run(bench, "check")

    assert "stripe key (test mode): Stripe: 401 (api_key_expired)" in printed
    assert KEY not in printed
    assert code == 1


@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY} x", f"{KEY}\u200b"])
async def test_check_names_a_key_that_cannot_be_sent(bench: Bench, key: str) -> None:
    """The settings refuse it: Stripe is not asked, and the operator learns that it is the key."""
    code, printed = await run(bench, "check", STRIPE_SECRET_KEY=key)

    assert printed.startswith("settings: STRIPE_SECRET_KEY: ")
    assert "stripe: not checked: its settings are missing or invalid" in printed
    assert KEY not in printed
    assert code == 2


async def test_a_meter_beyond_the_first_page_is_found(bench: Bench) -> None:
    """Stripe lists the newest first: with 101 newer ones ours is on the second page."""
    add_meters(bench, 101)

    code, printed = await run(bench, "check")
    ensured, _ = await run(bench, "meters", "ensure")

    assert f"meter {METER}: ok" in printed
    assert (code, ensured) == (0, 0)


async def test_meters_ensure_creates_what_is_missing(bench: Bench) -> None:
    """The missing meter is created as reports need it, the existing one left alone."""
    settings = {"STRIPE_TOKENS_METER_EVENT_NAME": "tokens_used"}

    before, _ = await run(bench, "check", **settings)
    first = await run(bench, "meters", "ensure", **settings)
    again = await run(bench, "meters", "ensure", **settings)
    after, _ = await run(bench, "check", **settings)

    assert (before, after) == (1, 0)
    assert first == again == (0, f"meter {METER}: ok\nmeter tokens_used: ok\n")
    created = bench.account.meters.active_for("tokens_used")
    assert created is not None
    assert created.formula == "sum"
    assert created.display_name == f"{DISPLAY_NAME}: tokens_used"


async def test_meters_ensure_reports_a_differing_meter_and_leaves_it(bench: Bench) -> None:
    """Replacing a meter would split its sums: that is for a person to decide."""
    described = {
        "display_name": "Other",
        "event_name": "tokens_used",
        "default_aggregation": {"formula": "count"},
    }
    bench.account.meters.create(described, bench.account.clock.now())

    code, printed = await run(
        bench, "meters", "ensure", STRIPE_TOKENS_METER_EVENT_NAME="tokens_used"
    )

    assert "meter tokens_used: formula is 'count', must be 'sum'" in printed
    assert code == 1


def listed(printed: str) -> list[CallRecord | CallRecordsEnd]:
    """Return the lines of a list of calls."""
    return [read_call_record(line) for line in printed.splitlines() if line.startswith("{")]


async def test_the_journal_is_listed_as_a_lost_ledger_needs_it(bench: Bench) -> None:
    """Each report with its claim and what its calls came to, the oldest first, to an end."""
    claim = uuid4()
    dimensions = {"tool_name": "forecast"}
    counted = bench.report(bench.customer(), 7, claim_id=claim, dimensions=dimensions)
    refused = bench.report("cus_gone", claim_id=claim, late=True)
    unanswered = bench.report(bench.customer(), claim_id=uuid4())
    async with bench.reporting():
        for event, outcome in ((counted, "reported"), (refused, "rejected")):
            await bench.send(event)
            await eventually(partial(bench.handled, outcome), lambda number: number == 1)
        bench.fault("reset", when="after", times=None)
        await bench.send(unanswered)
        await eventually(partial(bench.state, unanswered), lambda state: state == "unknown")
    since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()

    code, printed = await run(bench, "journal", "--since", since)

    *records, end = listed(printed)
    assert code == 0
    assert end == CallRecordsEnd(records=3, since=datetime.fromisoformat(since))
    found = [each for each in records if isinstance(each, CallRecord)]
    assert [each.report for each in found] == [counted.data, refused.data, unanswered.data]
    assert [(each.state, each.reason, each.ever_unknown) for each in found] == [
        ("accepted", None, False),
        ("refused", "no_such_customer", False),
        ("unknown", None, True),
    ]


async def test_only_calls_since_the_time_are_listed_however_many_there_are(bench: Bench) -> None:
    """More than a page, many of them begun at one moment; none is left out or listed twice."""
    claim = uuid4()
    events = [bench.report("cus_1", claim_id=claim) for _ in range(2500)]
    began = datetime.now(UTC) - timedelta(hours=1)
    async with bench.database() as database:
        for number, some in enumerate((events[:1200], events[1200:])):
            calls = [
                Call(report, calling(report, None, began + timedelta(minutes=number)))
                for report in (Report.of(event.data) for event in some)
            ]
            await database.run(partial(insert_calls, calls=calls))

    _, all_of_them = await run(bench, "journal", "--since", began.isoformat())
    _, later = await run(bench, "journal", "--since", (began + timedelta(seconds=30)).isoformat())

    ids = [each.report.report_id for each in listed(all_of_them) if isinstance(each, CallRecord)]
    assert sorted(ids) == sorted(event.data.report_id for event in events)
    assert set(ids[:1200]) == {event.data.report_id for event in events[:1200]}
    assert len(listed(later)) == 1300 + 1


async def test_a_report_that_was_rejected_since_is_listed_however_old_its_call(
    bench: Bench,
) -> None:
    """A ledger from a backup that has its answer does not know what Stripe said after it."""
    rejected = bench.report(bench.customer(), 5, claim_id=uuid4())
    counted = bench.report(bench.customer(), 3, claim_id=uuid4())
    reject_later(bench, customer=rejected.data.stripe_customer_id)
    async with bench.reporting():
        await bench.send(rejected, counted)
        await bench.outcomes(2)
        await hear(bench, *error_reports(bench))
        await outcomes(bench, 3)
    since = bench.now() - timedelta(seconds=30)

    _, printed = await run(bench, "journal", "--since", since.isoformat())

    found = [each for each in listed(printed) if isinstance(each, CallRecord)]
    assert [(each.report, each.rejected_later) for each in found] == [(rejected.data, CODE)]


async def test_what_was_said_since_of_earlier_calls_is_listed(bench: Bench) -> None:
    """A restored ledger has the report as it was when the backup was made."""
    now = datetime.now(UTC)
    since, began = now - timedelta(hours=1), now - timedelta(days=3)
    # When each was called, answered, rejected, and its rejection announced.
    said = (
        (began, began, now, None),  # the reporter is stopped
        (began, now, None, None),
        (began, began, began, now),  # the broker was away in between
        (now, now, now, now),
        (began, began, began, began),
    )
    events = [bench.report("cus_1", claim_id=uuid4()) for _ in said]
    async with bench.database() as database:
        for event, (called, answered, marked, announced) in zip(events, said, strict=True):
            report = Report.of(event.data)
            call = Call(report, calling(report, None, called))
            await database.run(partial(insert_calls, calls=[call]))
            values = {"id": report.identifier, "answered_at": answered, "marked_at": marked}
            await database.run(partial(_say, statement=SAY, values=values))
            values = {"id": report.identifier, "heard_at": marked, "announced_at": announced}
            if marked is not None:
                await database.run(partial(_say, statement=ANNOUNCE, values=values))

    code, printed = await run(bench, "journal", "--since", since.isoformat())

    assert code == 0
    found = [
        (each.report.report_id, each.rejected_later)
        for each in listed(printed)
        if isinstance(each, CallRecord)
    ]
    marks = ("no_meter", None, "no_meter", "no_meter")
    expected = zip((event.data.report_id for event in events[:4]), marks, strict=True)
    assert sorted(found) == sorted(expected)


async def _say(
    connection: AsyncConnection, statement: TextClause, values: Mapping[str, Any]
) -> None:
    await connection.execute(statement, values)


async def test_reports_without_their_claim_are_counted_and_fail_the_command(bench: Bench) -> None:
    """They are of an older release, and a ledger can't take them back."""
    event = bench.report(bench.customer())
    async with bench.reporting():
        await bench.send(event)
        await eventually(partial(bench.handled, "reported"), lambda number: number == 1)

    code, printed = await run(bench, "journal", "--since", "2026-01-01T00:00:00Z")

    assert code == 1
    assert "1 more came without their claim, from an older release" in printed


async def test_a_time_must_say_how_far_it_is_from_utc(bench: Bench) -> None:
    """An hour read in the wrong zone would leave an hour of reports out."""
    code, printed = await run(bench, "journal", "--since", "2026-01-01T00:00:00")

    assert code == 2
    assert "a time with its offset is wanted" in printed


async def test_sigterm_finishes_what_is_in_hand(bench: Bench) -> None:
    """The call under way gets its answer, its outcome is published, and the process ends well."""
    event = bench.report(bench.customer())
    bench.account.options = bench.account.options.changed({"call_seconds": 1.0})
    process = await start(bench, "serve")
    await bench.send(event)
    await eventually(bench.calls, bool)

    process.send_signal(signal.SIGTERM)
    output = await end(bench, process)

    assert process.returncode == 0
    assert "stopped" in output
    await bench.outcomes(1)
    assert bench.attempts(event)["attempts"] == 1


@pytest.mark.parametrize("missing", ["STRIPE_SECRET_KEY", "AMQP_URL"])
async def test_a_missing_setting_is_named(bench: Bench, missing: str) -> None:
    """The exit code distinguishes a wrong setting from a failure."""
    code, printed = await run(bench, "serve", **{missing: ""})

    assert f"{missing}: not set" in printed
    assert code == 2
