"""The commands for people: how do things stand, why is this not billed, and send that again."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Final
from uuid import UUID

from nexus_database import Database
from nexus_messaging.command import FAILED, FINE, Command, positive
from nexus_messaging.console import Tone, show_line, show_lines, show_table, steps
from nexus_messaging.publisher import Publisher
from nexus_messaging.settings import BrokerSettings, DatabaseSettings
from nexus_messaging.settlement import utc_now
from usage_ingest.explanation import TITLES, explain, table
from usage_ingest.inquiries import Inquiries
from usage_ingest.loops import publication
from usage_ingest.reports import InexpressibleError
from usage_ingest.restoring import ADOPT

NAME: Final = "usage-ingest"


class ReplaySettings(DatabaseSettings, BrokerSettings):
    """What replaying needs."""


@asynccontextmanager
async def _inquiries(settings: DatabaseSettings) -> AsyncIterator[Inquiries]:
    database = Database(settings.database_url.get_secret_value(), name=f"{NAME} command")
    try:
        yield Inquiries(database)
    finally:
        await database.close()


async def _status(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    now = utc_now()
    async with _inquiries(settings) as inquiries:
        standing = await inquiries.standing(now - timedelta(days=parsed.days))
    late, allowed = standing.oldest_unfinished(now), timedelta(seconds=parsed.late_after)
    degraded = late > allowed
    if parsed.json:
        told = asdict(standing) | {"late_seconds": late.total_seconds(), "degraded": degraded}
        print(json.dumps(told, default=str))
    else:
        show_table(TITLES, table(standing, now, allowed))
        verdict = f"oldest unanswered usage: {late.total_seconds():.0f} s"
        if degraded:
            show_line(f"{verdict}, more than {parsed.late_after:.0f} s: degraded", Tone.BAD)
        else:
            show_line(verdict, Tone.GOOD)
    return FAILED if degraded else FINE


async def _explain(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    async with _inquiries(settings) as inquiries:
        trace = await inquiries.trace(parsed.event_id)
    if trace is None:
        print(
            f"{NAME}: {parsed.event_id} is not in the ledger: it was never published or confirmed,"
            " still waits in usage-ingest.tool-executed, or lies in its dead-letter queue",
            file=sys.stderr,
        )
        return FAILED
    show_lines(explain(trace))
    return FINE


async def _replay(settings: ReplaySettings, parsed: argparse.Namespace) -> int:
    before = utc_now() - timedelta(seconds=parsed.older_than)
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
                    print(f"{NAME}: report {report.report_id}: {report}", file=sys.stderr)
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
        type=float,
        default=900.0,
        metavar="SECONDS",
        help="exit with 1 if usage is unanswered for longer (900)",
    )
    parser.add_argument(
        "--days",
        type=positive,
        default=1.0,
        metavar="N",
        help="how far back to add up what was reported (1)",
    )


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("event_id", type=UUID, help="the id that its publisher gave the event")


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=positive,
        default=3600.0,
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
        "say how events and reports stand; 1 if usage is unanswered for too long",
        DatabaseSettings,
        _status,
        _status_arguments,
        ("{}", "{} --days 31", "{} --json | jq .late_seconds"),
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
