"""The commands for people: how do things stand, why is this not billed, and send that again."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import SecretStr

from nexus_broker_admin.depths import Depths, look
from nexus_broker_admin.inspection import vhost_of
from nexus_database import Database, DatabaseUnavailableError
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_messaging.connecting import BrokerUnreachableError
from nexus_messaging.publisher import Publisher
from nexus_messaging.settings import AmqpUrl, BrokerSettings
from nexus_service.command import FAILED, FINE, Command, duration, positive
from nexus_service.console import (
    Finding,
    Tone,
    complain,
    show_json,
    show_line,
    show_lines,
    show_table,
    steps,
)
from usage_ingest.explanation import TITLES, explain, table
from usage_ingest.inquiries import Inquiries, Standing
from usage_ingest.loops import publication
from usage_ingest.reports import InexpressibleError
from usage_ingest.restoring import ADOPT
from usage_ingest.status import QUEUES, findings, queue_rows
from usage_ingest.status import TITLES as QUEUE_TITLES

NAME: Final = "usage-ingest"


class StatusSettings(DatabaseSettings):
    """What `status` may be given: without a broker's address it shows the ledger alone."""

    amqp_url: AmqpUrl | None = None
    management_url: SecretStr | None = None


class ReplaySettings(DatabaseSettings, BrokerSettings):
    """What replaying needs."""


@asynccontextmanager
async def _inquiries(settings: DatabaseSettings) -> AsyncIterator[Inquiries]:
    database = Database(settings.database_url.get_secret_value(), name=f"{NAME} command")
    try:
        yield Inquiries(database)
    finally:
        await database.close()


async def _status(settings: StatusSettings, parsed: argparse.Namespace) -> int:
    now = utc_now()
    standing, ledger = await _standing(settings, now - parsed.days)
    depths, broker = await _depths(settings)
    found = [*ledger, *broker, *findings(standing, depths, now, parsed.late_after)]
    degraded = any(each.tone is Tone.BAD for each in found)
    if parsed.json:
        shown = [{"name": e.name, "text": e.text, "tone": e.tone.name.lower()} for e in found]
        show_json(_facts(standing, depths, now) | {"degraded": degraded, "findings": shown})
        return FAILED if degraded else FINE
    if standing is not None:
        show_table(TITLES, table(standing, now, parsed.late_after))
    if depths is not None:
        show_table(QUEUE_TITLES, queue_rows(depths))
    for each in found:
        show_line(f"{each.name}: {each.text}", each.tone)
    return FAILED if degraded else FINE


async def _standing(
    settings: StatusSettings, since: datetime
) -> tuple[Standing | None, list[Finding]]:
    """Ask the ledger; where it can't be asked, the broker is asked all the same."""
    try:
        async with _inquiries(settings) as inquiries:
            return await inquiries.standing(since), []
    except DatabaseUnavailableError as error:
        complain(NAME, str(error))
        return None, [Finding("ledger", str(error), Tone.BAD)]


async def _depths(settings: StatusSettings) -> tuple[Depths | None, list[Finding]]:
    """Ask the broker; where it can't be asked, the ledger is asked all the same."""
    if settings.amqp_url is None:
        text = "queues and dead letters were not looked at: set AMQP_URL"
        return None, [Finding("broker", text, Tone.NOTE)]
    url, management = settings.amqp_url.get_secret_value(), settings.management_url
    address = management.get_secret_value() if management else None
    try:
        return await look(url, QUEUES, address, vhost_of(url)), []
    except BrokerUnreachableError as error:
        return None, [Finding("broker", str(error), Tone.BAD)]


def _facts(standing: Standing | None, depths: Depths | None, now: datetime) -> dict[str, object]:
    """Return the same for programs: null is what was not, or could not be, looked at."""
    facts: dict[str, object] = dict.fromkeys(
        ("since", "events", "reports", "newest", "late_seconds", "queues", "connected")
    )
    if standing is not None:
        facts |= asdict(standing)
        facts["late_seconds"] = standing.oldest_unfinished(now).total_seconds()
    if depths is not None:
        facts["queues"] = {queue: asdict(depth) for queue, depth in depths.queues.items()}
        facts["connected"] = None if depths.connected is None else sorted(depths.connected)
    return facts


async def _explain(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    async with _inquiries(settings) as inquiries:
        trace = await inquiries.trace(parsed.event_id)
    if trace is None:
        complain(
            NAME,
            f"{parsed.event_id} is not in the ledger: it was never published or confirmed,"
            " still waits in usage-ingest.tool-executed or a retry tier, or lies in its"
            " dead-letter queue",
        )
        return FAILED
    show_lines(explain(trace))
    return FINE


async def _replay(settings: ReplaySettings, parsed: argparse.Namespace) -> int:
    before = utc_now() - parsed.older_than
    async with AsyncExitStack() as stack:
        inquiries = await stack.enter_async_context(_inquiries(settings))
        number = await inquiries.unanswered_number(before)
        if not parsed.execute:
            show_line(f"{number} reports would be forwarded again; nothing was: add --execute")
            return FINE
        publisher = await Publisher.connect(settings.amqp_url.get_secret_value(), name=NAME)
        stack.push_async_callback(publisher.close)
        done, unsent = 0, 0
        with steps("reports forwarded again", number) as progress:
            async for report in inquiries.unanswered(before):
                if isinstance(report, InexpressibleError):
                    unsent += 1
                    complain(NAME, f"report {report.report_id}: {report}")
                    continue
                await publisher.publish(publication(report, utc_now()))
                done += 1
                progress.advance()
                await asyncio.sleep(1 / parsed.throttle)
    show_line(f"{done} reports were forwarded again")
    if unsent:
        show_line(f"{unsent} can't be sent as they are stored", Tone.BAD)
    return FAILED if unsent else FINE


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
        "say how usage stands in ledger and queues, and what keeps it from Stripe; then 1",
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
        "tell every step of one event, or why it is not billed",
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
