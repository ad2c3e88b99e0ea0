"""The commands for operators: status, explain, replay, and adopt of recovery."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import SecretStr

from nexus_broker_admin.depths import Depths, read_depths
from nexus_broker_admin.inspection import vhost_of
from nexus_database import Database, DatabaseUnavailableError
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_messaging.connecting import BrokerUnreachableError
from nexus_messaging.outgoing import send
from nexus_messaging.publisher import Publisher
from nexus_messaging.settings import AmqpUrl, BrokerSettings
from nexus_service.command import FAILED, SUCCESS, Command, duration, positive
from nexus_service.console import (
    Finding,
    Tone,
    show_error,
    show_json,
    show_line,
    show_lines,
    show_table,
    steps,
)
from usage_ingest.explanation import explain
from usage_ingest.jobs import usage_recorded
from usage_ingest.recovery.command import ADOPT
from usage_ingest.status import (
    LEDGER_TITLES,
    QUEUE_TITLES,
    QUEUES,
    LedgerCounts,
    findings,
    ledger_rows,
    queue_rows,
)
from usage_ingest.storage.reader import LedgerReader
from usage_ingest.storage.reports import InvalidReportError

NAME: Final = "usage-ingest"


class StatusSettings(DatabaseSettings):
    """The settings of `status`; without AMQP_URL it shows the ledger alone."""

    amqp_url: AmqpUrl | None = None
    management_url: SecretStr | None = None


class ReplaySettings(DatabaseSettings, BrokerSettings):
    """The settings of `replay`."""


@asynccontextmanager
async def _ledger_reader(settings: DatabaseSettings) -> AsyncIterator[LedgerReader]:
    url = settings.database_url.get_secret_value()
    async with Database(url, name=f"{NAME} command") as database:
        yield LedgerReader(database)


async def _status(settings: StatusSettings, parsed: argparse.Namespace) -> int:
    now = utc_now()
    counts, ledger = await _counts(settings, now - parsed.days)
    depths, broker = await _depths(settings)
    found = [*ledger, *broker, *findings(counts, depths, now, parsed.late_after)]
    degraded = any(each.tone is Tone.BAD for each in found)
    if parsed.json:
        shown = [{"name": e.name, "text": e.text, "tone": e.tone.name.lower()} for e in found]
        show_json(_facts(counts, depths, now) | {"degraded": degraded, "findings": shown})
        return FAILED if degraded else SUCCESS
    if counts is not None:
        show_table(LEDGER_TITLES, ledger_rows(counts, now, parsed.late_after))
    if depths is not None:
        show_table(QUEUE_TITLES, queue_rows(depths))
    for each in found:
        show_line(f"{each.name}: {each.text}", each.tone)
    return FAILED if degraded else SUCCESS


async def _counts(
    settings: StatusSettings, since: datetime
) -> tuple[LedgerCounts | None, list[Finding]]:
    """Query the ledger; if it does not answer, the broker is queried all the same."""
    try:
        async with _ledger_reader(settings) as reader:
            return await reader.counts(since), []
    except DatabaseUnavailableError as error:
        show_error(NAME, str(error))
        return None, [Finding("ledger", str(error), Tone.BAD)]


async def _depths(settings: StatusSettings) -> tuple[Depths | None, list[Finding]]:
    """Query the broker; if it does not answer, the ledger is shown all the same."""
    if settings.amqp_url is None:
        text = "queues and dead letters were not read: set AMQP_URL"
        return None, [Finding("broker", text, Tone.NOTE)]
    url, management = settings.amqp_url.get_secret_value(), settings.management_url
    address = management.get_secret_value() if management else None
    try:
        return await read_depths(url, QUEUES, address, vhost_of(url)), []
    except BrokerUnreachableError as error:
        return None, [Finding("broker", str(error), Tone.BAD)]


def _facts(counts: LedgerCounts | None, depths: Depths | None, now: datetime) -> dict[str, object]:
    """Return the same for programs; what was not read, or could not be, is null."""
    facts: dict[str, object] = dict.fromkeys(
        ("since", "events", "reports", "newest", "late_seconds", "queues", "connected")
    )
    if counts is not None:
        facts |= asdict(counts)
        facts["late_seconds"] = counts.oldest_unfinished(now).total_seconds()
    if depths is not None:
        facts["queues"] = {queue: asdict(depth) for queue, depth in depths.queues.items()}
        facts["connected"] = None if depths.connected is None else sorted(depths.connected)
    return facts


async def _explain(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    async with _ledger_reader(settings) as reader:
        history = await reader.history(parsed.event_id)
    if history is None:
        show_error(
            NAME,
            f"{parsed.event_id} is not in the ledger: it was never published or confirmed,"
            " still waits in usage-ingest.tool-executed or a retry tier, or lies in its"
            " dead-letter queue",
        )
        return FAILED
    show_lines(explain(history))
    return SUCCESS


async def _replay(settings: ReplaySettings, parsed: argparse.Namespace) -> int:
    before = utc_now() - parsed.older_than
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(_ledger_reader(settings))
        number = await reader.unanswered_number(before)
        if not parsed.execute:
            show_line(f"{number} reports would be forwarded again; nothing was: add --execute")
            return SUCCESS
        publisher = await Publisher.connect(settings.amqp_url.get_secret_value(), name=NAME)
        stack.push_async_callback(publisher.close)
        done, unsent = 0, 0
        with steps("reports forwarded again", number) as progress:
            async for report in reader.unanswered(before):
                if isinstance(report, InvalidReportError):
                    unsent += 1
                    show_error(NAME, f"report {report.report_id}: {report}")
                    continue
                await send(publisher, usage_recorded(report, utc_now()))
                done += 1
                progress.advance()
                await asyncio.sleep(1 / parsed.throttle)
    show_line(f"{done} reports were forwarded again")
    if unsent:
        show_line(f"{unsent} can't be sent as they are stored", Tone.BAD)
    return FAILED if unsent else SUCCESS


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument(
        "--late-after",
        type=duration(timedelta(seconds=1)),
        default=timedelta(seconds=900),
        metavar="SECONDS",
        help="how long usage may be unanswered, or wait with none recorded (900)",
    )
    parser.add_argument(
        "--days",
        type=duration(timedelta(days=1)),
        default=timedelta(days=1),
        metavar="N",
        help="how far back to add up what was reported (1)",
    )


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("event_id", type=UUID, help="the id that its publisher gave the event")


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=duration(timedelta(seconds=1)),
        default=timedelta(seconds=3600),
        metavar="SECONDS",
        help="only what was forwarded longer ago (3600)",
    )
    parser.add_argument("--execute", action="store_true", help="forward; else only count")
    parser.add_argument(
        "--throttle", type=positive, default=50.0, metavar="N", help="reports per second (50)"
    )


COMMANDS: Final = (
    Command(
        "status",
        "show usage in ledger and queues; exit 1 if anything keeps it from Stripe",
        StatusSettings,
        _status,
        _status_arguments,
        (
            "{}",
            "{} --days 31",
            "{} --json | jq .late_seconds",
            "MANAGEMENT_URL=https://monitor:…@broker:15671 {}",
        ),
    ),
    Command(
        "explain",
        "show every step of one event, or why it is not billed",
        DatabaseSettings,
        _explain,
        _explain_arguments,
        ("{} 0198c2f0-7c1e-7000-8000-000000000000",),
    ),
    Command(
        "replay",
        "forward again what was forwarded and never answered; stripe-reporter knows repetitions",
        ReplaySettings,
        _replay,
        _replay_arguments,
        ("{}", "{} --older-than 7200 --execute --throttle 20"),
    ),
    ADOPT,
)
