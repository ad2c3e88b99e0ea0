"""The commands for people: how do things stand, why is this not billed, and send that again."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from math import inf
from typing import Final
from uuid import UUID

from pydantic import BaseModel, SecretStr

from nexus_contracts import UsageRecorded
from nexus_database import Database
from nexus_messaging.command import FAILED, FINE, Command
from nexus_messaging.publisher import Publisher
from nexus_messaging.settlement import utc_now
from usage_ingest.explanation import explain, table
from usage_ingest.inquiries import FIRST_ID, Inquiries
from usage_ingest.loops import publication
from usage_ingest.restoring import ADOPT

NAME: Final = "usage-ingest"
PROGRESS_EVERY: Final = 100


class LedgerSettings(BaseModel):
    """What the asking commands need."""

    database_url: SecretStr


class ReplaySettings(LedgerSettings):
    """What replaying needs besides."""

    amqp_url: SecretStr


@asynccontextmanager
async def _inquiries(settings: LedgerSettings) -> AsyncIterator[Inquiries]:
    database = Database(settings.database_url.get_secret_value(), name=f"{NAME} command")
    try:
        yield Inquiries(database)
    finally:
        await database.close()


async def _status(settings: LedgerSettings, parsed: argparse.Namespace) -> int:
    async with _inquiries(settings) as inquiries:
        standing = await inquiries.standing()
    now = utc_now()
    late = standing.oldest_unfinished(now)
    degraded = late > timedelta(seconds=parsed.late_after)
    if parsed.json:
        told = asdict(standing) | {"late_seconds": late.total_seconds(), "degraded": degraded}
        print(json.dumps(told, default=str))
    else:
        for line in table(standing, now):
            print(line)
        print(f"oldest unanswered usage: {late.total_seconds():.0f} s")
    return FAILED if degraded else FINE


async def _explain(settings: LedgerSettings, parsed: argparse.Namespace) -> int:
    async with _inquiries(settings) as inquiries:
        trace = await inquiries.trace(parsed.event_id)
    if trace is None:
        print(
            "not in the ledger: it was never published or confirmed, still waits in"
            " usage-ingest.tool-executed, or lies in its dead-letter queue",
            file=sys.stderr,
        )
        return FAILED
    for line in explain(trace):
        print(line)
    return FINE


async def _replay(settings: ReplaySettings, parsed: argparse.Namespace) -> int:
    before = utc_now() - timedelta(seconds=parsed.older_than)
    number = 0
    async with _inquiries(settings) as inquiries:
        if not parsed.execute:
            async for _ in _unanswered(inquiries, before):
                number += 1
            print(f"{number} reports would be forwarded again; nothing was: add --execute")
            return FINE
        publisher = await Publisher.connect(settings.amqp_url.get_secret_value(), name=NAME)
        try:
            async for report in _unanswered(inquiries, before):
                await publisher.publish(publication(report, utc_now()))
                number += 1
                if number % PROGRESS_EVERY == 0:
                    print(f"{number} reports forwarded again", file=sys.stderr)
                await asyncio.sleep(1 / parsed.throttle)
        finally:
            await publisher.close()
    print(f"{number} reports were forwarded again")
    return FINE


async def _unanswered(inquiries: Inquiries, before: datetime) -> AsyncIterator[UsageRecorded]:
    after = FIRST_ID
    while page := await inquiries.unanswered(before, after=after):
        for report in page:
            yield report
        after = page[-1].report_id


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument(
        "--late-after",
        type=float,
        default=900.0,
        metavar="SECONDS",
        help="exit with 1 if usage is unanswered for longer (900)",
    )


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("event_id", type=UUID)


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="only what was forwarded longer ago (3600)",
    )
    parser.add_argument("--execute", action="store_true", help="forward; else only count")
    parser.add_argument(
        "--throttle", type=_rate, default=50.0, metavar="N", help="reports per second (50)"
    )


def _rate(written: str) -> float:
    rate = float(written)
    if not 0 < rate < inf:
        raise ValueError(written)
    return rate


COMMANDS: Final = (
    Command(
        "status",
        "say how events and reports stand; 1 if usage is unanswered for too long",
        LedgerSettings,
        _status,
        _status_arguments,
    ),
    Command(
        "explain",
        "tell every step of one event, or why it is not billed",
        LedgerSettings,
        _explain,
        _explain_arguments,
    ),
    Command(
        "replay",
        "forward again what was forwarded and never answered; stripe-reporter knows repetitions",
        ReplaySettings,
        _replay,
        _replay_arguments,
    ),
    ADOPT,
)
