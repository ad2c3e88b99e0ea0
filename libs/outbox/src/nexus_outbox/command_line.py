"""The command line of nexus-outbox: its commands, and where each part of them is.

A part is imported by the command that needs it, so this module imports settings alone.
"""

import argparse
from typing import Final

from nexus_database.settings import DatabaseSettings
from nexus_outbox.settings import Settings
from nexus_service.command import Command, NoSettings, Service, moment

FILES: Final = ("install", "uninstall", "install-pg-net", "uninstall-pg-net")


def _print_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", choices=FILES, help="which file")


def _publish_again_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        type=moment,
        required=True,
        metavar="TIME",
        help="published since then, with its offset from UTC: 2026-03-01T12:00:00Z; earlier than"
        " needed is harmless",
    )
    parser.add_argument("--execute", action="store_true", help="do it; without it, only count")


COMMANDS: Final = (
    Command(
        "print",
        "print the SQL that installs or removes the outbox, or the trigger for pg_net",
        NoSettings,
        "nexus_outbox.commands:print_sql",
        _print_arguments,
        ('{} install | psql -v ON_ERROR_STOP=1 "$DATABASE_URL"', "{} uninstall"),
    ),
    Command(
        "status",
        "count the events that are not published",
        DatabaseSettings,
        "nexus_outbox.commands:show_status",
    ),
    Command(
        "publish-again",
        "publish kept events again, with the same ids, after a restore of metering",
        DatabaseSettings,
        "nexus_outbox.commands:publish_again",
        _publish_again_arguments,
        ("{} --since 2026-03-01T12:00:00Z", "{} --since 2026-03-01T12:00:00Z --execute"),
    ),
    Command(
        "retry",
        "try the events again that were set aside",
        DatabaseSettings,
        "nexus_outbox.commands:retry_invalid",
    ),
)

SERVICE: Final = Service(
    name="nexus-outbox",
    purpose="Publishes events from the outbox in another service's PostgreSQL database.",
    settings=Settings,
    serve="nexus_outbox.app:serve",
    checks="nexus_outbox.app:CHECKS",
    migrate="nexus_outbox.installation:install",
    faults="nexus_outbox.commands:FAULTS",
    commands=COMMANDS,
)
