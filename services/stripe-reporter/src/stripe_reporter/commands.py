"""The commands for people: meters as reports need them, and the journal for a lost ledger."""

import argparse
import sys
from contextlib import aclosing
from typing import Final

from nexus_contracts import CallRecordsEnd
from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_service.command import FAILED, FINE, Command, moment
from nexus_service.console import Finding, Tone, rfc_3339, show_findings, show_json, show_line
from stripe_reporter.checks import ensure_meters
from stripe_reporter.history import history
from stripe_reporter.settings import StripeSettings

PROGRESS_EVERY: Final = 10_000


async def _meters(settings: StripeSettings, _parsed: argparse.Namespace) -> int:
    faults = await ensure_meters(settings)
    show_findings(
        Finding(f"meter {name}") if fault is None else Finding(f"meter {name}", fault, Tone.BAD)
        for name, fault in faults.items()
    )
    return FAILED if any(faults.values()) else FINE


async def _journal(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    told = untold = 0
    database = Database(settings.database_url.get_secret_value(), name="stripe-reporter command")
    try:
        async with aclosing(history(database, parsed.since)) as records:
            async for record in records:
                if record is None:
                    untold += 1
                    continue
                show_json(record.model_dump(mode="json"))
                told += 1
                if told % PROGRESS_EVERY == 0:
                    _say(f"{told} reports, up to {rfc_3339(record.started_at)}")
    finally:
        await database.close()
    show_json(CallRecordsEnd(records=told, since=parsed.since).model_dump(mode="json"))
    _say(f"{told} reports since {rfc_3339(parsed.since)}")
    if untold:
        _say(f"{untold} more came without their claim, from an older release")
    return FAILED if untold else FINE


def _say(line: str) -> None:
    show_line(line, stream=sys.stderr)


def _journal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        type=moment,
        required=True,
        metavar="TIME",
        help="with its offset from UTC: 2026-03-01T12:00:00Z; earlier than needed is harmless",
    )


def _meters_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["ensure"], help="create what is missing, then verify")


COMMANDS: Final = (
    Command(
        "meters",
        "create the meters that Stripe lacks; say what is wrong with the others",
        StripeSettings,
        _meters,
        _meters_arguments,
        ("{} ensure",),
    ),
    Command(
        "journal",
        "list every report called since a time, for `usage-ingest adopt` after a restore",
        DatabaseSettings,
        _journal,
        _journal_arguments,
        ("{} --since 2026-03-01T12:00:00Z > calls.jsonl",),
    ),
)
