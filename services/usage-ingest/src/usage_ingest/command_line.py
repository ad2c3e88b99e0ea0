"""The command line of usage-ingest: its commands, and where each part of them is.

A part is imported by the command that needs it, so this module imports settings alone.
"""

import argparse
from datetime import timedelta
from typing import Final
from uuid import UUID

import nexus_database
from nexus_database.settings import DatabaseSettings
from nexus_service.command import Command, Server, Service, duration, moment, positive
from nexus_service.key_command import MAKE_API_KEY
from usage_ingest.arguments import (
    hour,
    month,
    one_line,
    readable_twice,
    rows,
    user_or_customer,
)
from usage_ingest.events_api.settings import Settings as EventsApiSettings
from usage_ingest.settings import (
    NAME,
    AdoptSettings,
    ExplainSettings,
    ReplaySettings,
    Settings,
    StatusSettings,
    WaitingSettings,
)
from usage_ingest.usage_api.settings import PlansSettings
from usage_ingest.usage_api.settings import Settings as UsageApiSettings


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
        metavar="N",
        help="add up all that was reported in N days; without it, the newest of the last day",
    )


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("event_id", type=UUID, help="the id that its publisher gave the event")


def _payers_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user_id", type=UUID, help="the user, as tool runs name them")


def _reconcile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--customer", metavar="CUS", help="only this customer at Stripe, cus_…")
    parser.add_argument("--meter", metavar="NAME", help="only this meter, by its event name")
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="only hours from TIME on, 2026-11-03T14:00:00Z"
    )
    parser.add_argument("--settled", action="store_true", help="with those that were settled")
    parser.add_argument(
        "--older-than",
        type=duration(timedelta(seconds=1)),
        default=timedelta(days=1),
        metavar="SECONDS",
        help="exit 1 only for differences that are known for longer (86400)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a line of JSON for each, with reports")
    form.add_argument("--csv", action="store_true", help="comma-separated values, ages in seconds")


def _settle_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("customer", metavar="CUSTOMER", help="at Stripe, cus_…")
    parser.add_argument("meter", metavar="METER", help="its event name")
    parser.add_argument("hour", type=hour, metavar="HOUR", help="as `reconcile` lists it")
    parser.add_argument(
        "--note",
        required=True,
        type=one_line,
        metavar="TEXT",
        help="how, such as the invoice or credit note; no personal data",
    )


def _statement_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "of",
        type=user_or_customer,
        metavar="USER|CUSTOMER",
        help="a user's id, or a customer's, cus_…",
    )
    parser.add_argument(
        "--period", type=month, metavar="MONTH", help="a month of UTC, 2026-11 (this one)"
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=hour,
        metavar="TIME",
        help="a day or a whole hour of UTC: 2026-11-03 or 2026-11-03T14:00:00Z",
    )
    parser.add_argument(
        "--to",
        dest="end",
        type=hour,
        metavar="TIME",
        help="likewise, itself not included; without it, the end of this hour",
    )
    parser.add_argument(
        "--older-than",
        type=duration(timedelta(seconds=1)),
        default=timedelta(days=1),
        metavar="SECONDS",
        help="exit 1 only for what is unexplained for longer (86400)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a line of JSON for each sum")
    form.add_argument("--csv", action="store_true", help="the same as comma-separated values")


def _waiting_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument(
        "--late-after",
        type=duration(timedelta(seconds=1)),
        metavar="SECONDS",
        help="how long usage may wait for a customer (WAITING_ALLOWED_SECONDS)",
    )
    parser.add_argument("--most", type=rows, default=50, metavar="N", help="rows of the table (50)")


def _usage_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user_id", type=UUID, metavar="USER", help="the user's id")
    parser.add_argument(
        "--days",
        type=duration(timedelta(days=1)),
        default=timedelta(days=30),
        metavar="N",
        help="the last N days (30)",
    )
    parser.add_argument("--json", action="store_true", help="what the usage API would answer")


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


def _totals_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rebuild", action="store_true", help="make them what a scan of the ledger finds"
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare them with a scan; exit 1 at any difference"
    )


def _adopt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=readable_twice,
        help="the output of `stripe-reporter journal`; - for standard input",
    )
    parser.add_argument("--execute", action="store_true", help="change the ledger; else only count")
    parser.add_argument(
        "--reports-only",
        action="store_true",
        help="claim no events yet: whose they are is known once customers were announced again",
    )


COMMANDS: Final = (
    Command(
        "status",
        "show usage in ledger and queues; exit 1 if anything keeps it from Stripe",
        StatusSettings,
        "usage_ingest.commands:show_status",
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
        ExplainSettings,
        "usage_ingest.commands:explain_event",
        _explain_arguments,
        ("{} 0198c2f0-7c1e-7000-8000-000000000000",),
    ),
    Command(
        "payers",
        "show whose account pays for a user's runs, and what was claimed before that was known",
        DatabaseSettings,
        "usage_ingest.commands:show_payers",
        _payers_arguments,
        ("{} 0198c2f0-7c1e-7000-8000-000000000000",),
    ),
    Command(
        "reconcile",
        "show where Stripe's own sums differ from the ledger; exit 1 if a difference is old",
        DatabaseSettings,
        "usage_ingest.reconcile:reconcile",
        _reconcile_arguments,
        ("{}", "{} --meter tool_calls --csv", "{} --customer cus_… --json | jq .reports"),
    ),
    Command(
        "settle",
        "note that a difference was settled with finance: alert, status and reconcile leave it out"
        " until it changes; nothing changes at Stripe",
        DatabaseSettings,
        "usage_ingest.reconcile:settle_difference",
        _settle_arguments,
        ('{} cus_… tool_calls 2026-11-03T14:00:00Z --note "credit note CN-12"',),
    ),
    Command(
        "statement",
        "show what a user or customer used, by day, tool and meter: recorded, reported, counted by"
        " Stripe, and every difference; exit 1 if anything is unexplained for a day",
        DatabaseSettings,
        "usage_ingest.statement.command:show_statement",
        _statement_arguments,
        (
            "{} cus_… --period 2026-11",
            "{} cus_… --period 2026-11 --csv > statement.csv",
            "{} 0198c2f0-7c1e-7000-8000-000000000000 --from 2026-11-03 --to 2026-11-05 --json",
        ),
    ),
    Command(
        "waiting",
        "show whose usage waits for a Stripe customer, the longest first; exit 1 if it is too long",
        WaitingSettings,
        "usage_ingest.waiting:show_waiting",
        _waiting_arguments,
        ("{}", "{} --late-after 86400 --json"),
    ),
    Command(
        "usage",
        "show a user's plan, limits and usage, and what keeps amounts from Stripe",
        PlansSettings,
        "usage_ingest.usage_api.command:show_usage",
        _usage_arguments,
        ("{} 0198c2f0-7c1e-7000-8000-000000000000", "{} --days 7 --json 0198c2f0-…"),
    ),
    Command(
        "replay",
        "forward again what was forwarded and never answered; stripe-reporter knows repetitions",
        ReplaySettings,
        "usage_ingest.replay:replay_reports",
        _replay_arguments,
        ("{}", "{} --older-than 7200 --execute --throttle 20"),
    ),
    Command(
        "totals",
        "show how far the totals by hour are folded; compare them with the ledger, or rebuild them",
        DatabaseSettings,
        "usage_ingest.totals:show_totals",
        _totals_arguments,
        ("{}", "{} --verify", "{} --rebuild --verify"),
    ),
    Command(
        "adopt",
        "after a restore: complete the ledger from the reporter's journal; exit 1 if not complete",
        AdoptSettings,
        "usage_ingest.recovery.command:adopt",
        _adopt_arguments,
        ("{} calls.jsonl --execute --reports-only", "{} calls.jsonl", "{} calls.jsonl --execute"),
    ),
    MAKE_API_KEY,
)

EVENTS_API: Final = Server(
    "events-api",
    "publish events that come by HTTP, as the broker's user `publisher`; a process of its own",
    EventsApiSettings,
    "usage_ingest.events_api.app:serve",
    "usage_ingest.events_api.app:CHECKS",
)

USAGE_API: Final = Server(
    "usage-api",
    "answer what users may do and have used, as the role `usage_reader`; a process of its own",
    UsageApiSettings,
    "usage_ingest.usage_api.app:serve",
    "usage_ingest.usage_api.app:CHECKS",
)

SERVICE: Final = Service(
    name=NAME,
    purpose="Records tool runs in a permanent ledger and turns them into usage reports.",
    settings=Settings,
    serve="usage_ingest.app:serve",
    checks="usage_ingest.checks:CHECKS",
    migrate=lambda url: nexus_database.migrate(url, "usage_ingest"),
    faults="usage_ingest.commands:FAULTS",
    commands=COMMANDS,
    servers=(EVENTS_API, USAGE_API),
)
