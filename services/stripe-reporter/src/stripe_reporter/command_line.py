"""The command line of stripe-reporter: its commands, and where each part of them is.

A part is imported by the command that needs it, so this module imports settings alone.
"""

import argparse
from typing import Final

import nexus_database
from nexus_database.settings import DatabaseSettings
from nexus_service.command import Command, Service, moment
from stripe_reporter.settings import NAME, Settings, StripeSettings


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
        "stripe_reporter.commands:ensure",
        _meters_arguments,
        ("{} ensure",),
    ),
    Command(
        "journal",
        "list every report called or rejected since a time, for `usage-ingest adopt`",
        DatabaseSettings,
        "stripe_reporter.commands:list_calls",
        _journal_arguments,
        ("{} --since 2026-03-01T12:00:00Z > calls.jsonl",),
    ),
)

SERVICE: Final = Service(
    name=NAME,
    purpose="Sends each usage report to Stripe as one meter event, once.",
    settings=Settings,
    serve="stripe_reporter.app:serve",
    checks="stripe_reporter.checks:CHECKS",
    migrate=lambda url: nexus_database.migrate(url, "stripe_reporter"),
    faults="stripe_reporter.commands:FAULTS",
    commands=COMMANDS,
)
