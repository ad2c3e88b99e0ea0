"""The command line of customer-provisioner: its commands, and where each part of them is.

A part is imported by the command that needs it, so this module imports settings alone.
"""

import argparse
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

import nexus_database
from customer_provisioner.settings import (
    AdminSettings,
    BackfillSettings,
    CustomerSettings,
    PublishSettings,
    Settings,
)
from nexus_contracts.fields import StripeCustomerId
from nexus_database.settings import DatabaseSettings
from nexus_service.command import Command, Service, moment, positive, utf_8
from nexus_service.key_command import MAKE_API_KEY


def _backfill_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "file",
        nargs="?",
        help="in UTF-8: CSV with a header, JSON lines or a JSON array (standard input by default)",
    )
    source.add_argument(
        "--from-database",
        metavar="QUERY",
        help="read the rows of a query in the database of SOURCE_DATABASE_URL: user_id (uuid), "
        "email, and optionally name and stripe_customer_id",
    )
    parser.add_argument("--execute", action="store_true", help="publish; without it, only count")
    parser.add_argument(
        "--throttle", type=positive, default=10.0, metavar="N", help="users per second (10)"
    )


def _announce_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        type=moment,
        required=True,
        metavar="TIME",
        help="with its offset from UTC: 2026-03-01T12:00:00Z; earlier than needed is harmless",
    )
    parser.add_argument("--execute", action="store_true", help="publish; without it, only count")
    parser.add_argument(
        "--throttle", type=positive, default=100.0, metavar="N", help="events per second (100)"
    )


def _user_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user_id", type=UUID, help="the user's id, as the platform knows it")


_CUSTOMER_ID: Final[TypeAdapter[str]] = TypeAdapter(StripeCustomerId)


def _customer_id(written: str) -> str:
    try:
        return _CUSTOMER_ID.validate_python(written)
    except ValidationError:
        raise argparse.ArgumentTypeError(f"{written!r} is no customer's id, cus_…") from None


def _link_arguments(parser: argparse.ArgumentParser) -> None:
    _user_argument(parser)
    parser.add_argument("customer_id", type=_customer_id, help="the customer at Stripe, cus_…")
    parser.add_argument(
        "--replace", action="store_true", help="also if the user has another customer"
    )


def _reprovision_arguments(parser: argparse.ArgumentParser) -> None:
    _user_argument(parser)
    parser.add_argument(
        "--missing", action="store_true", help="also if Stripe has never known the customer"
    )


def _accounts_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="have a customer created or linked for it")
    create.add_argument("name", type=utf_8, help="the name of the customer at Stripe")
    create.add_argument("--id", type=UUID, help="the account's id (a new one)")
    create.add_argument("--email", type=utf_8, help="where Stripe sends invoices")
    create.add_argument(
        "--customer", type=_customer_id, help="the customer that it has at Stripe already, cus_…"
    )
    actions.add_parser("list", help="print all: id, state, customer and name")
    show = actions.add_parser("show", help="print its customer, subscriptions and users")
    show.add_argument("account_id", type=UUID, help="the account's id")


def _assign_arguments(parser: argparse.ArgumentParser) -> None:
    _user_argument(parser)
    parser.add_argument(
        "account_id", type=UUID, help="the account that pays; the user's own id: the user again"
    )
    parser.add_argument(
        "--from",
        dest="since",
        type=moment,
        metavar="TIME",
        help="with its offset from UTC: 2026-03-01T00:00:00Z (now); of the past, usage that is "
        "not claimed yet moves",
    )


def _plans_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["ensure"], help="make what Stripe lacks")
    parser.add_argument("--execute", action="store_true", help="make it; without it, only print")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


_ID: Final = "6f1c2a9e-0d3b-4c57-9a41-000000000000"
_ACCOUNT: Final = "0b8d1f64-5a2e-4f0c-8c55-000000000000"

COMMANDS: Final = (
    Command(
        "backfill",
        "have customers created for users that were there before this service",
        BackfillSettings,
        "customer_provisioner.backfill_command:backfill_users",
        _backfill_arguments,
        (
            "{} users.csv",
            "{} users.csv --execute --throttle 5",
            "{} --execute --from-database 'SELECT user_id, email FROM user_profiles'",
        ),
    ),
    Command(
        "accounts",
        "create, list or show accounts of organisations, which pay for many users",
        DatabaseSettings,
        "customer_provisioner.account_commands:manage_accounts",
        _accounts_arguments,
        ("{} create Acme --email billing@acme.example", "{} list", f"{{}} show {_ACCOUNT}"),
    ),
    Command(
        "assign",
        "have an account pay for a user, from a time on",
        DatabaseSettings,
        "customer_provisioner.account_commands:assign_user",
        _assign_arguments,
        (f"{{}} {_ID} {_ACCOUNT}", f"{{}} {_ID} {_ACCOUNT} --from 2026-03-01T00:00:00Z"),
    ),
    Command(
        "plans",
        "make at Stripe what PLANS_FILE has: meters, features, products and prices",
        AdminSettings,
        "customer_provisioner.plans_command:ensure_plans",
        _plans_arguments,
        ("{} ensure", "STRIPE_ADMIN_KEY=sk_… {} ensure --execute"),
    ),
    Command(
        "announce",
        "publish customers, assignments and subscriptions since a time again, after a restore of "
        "usage-ingest",
        PublishSettings,
        "customer_provisioner.commands:announce_again",
        _announce_arguments,
        ("{} --since 2026-03-01T12:00:00Z", "{} --since 2026-03-01T12:00:00Z --execute"),
    ),
    Command(
        "find",
        "print the users with an exact address, and their customers",
        DatabaseSettings,
        "customer_provisioner.commands:find_users",
        lambda parser: parser.add_argument("email", type=utf_8, help="exactly as it was published"),
        ("{} ada@example.com",),
    ),
    Command(
        "explain",
        "print every step taken for a user and the next one, who pays, and the subscriptions",
        DatabaseSettings,
        "customer_provisioner.commands:explain_user",
        _user_argument,
        (f"{{}} {_ID}",),
    ),
    Command(
        "link",
        "link a user to a customer that exists at Stripe, instead of having one created",
        CustomerSettings,
        "customer_provisioner.commands:link_user",
        _link_arguments,
        (f"{{}} {_ID} cus_NffrFeUfNV2Hib", f"{{}} {_ID} cus_NffrFeUfNV2Hib --replace"),
    ),
    Command(
        "reprovision",
        "have a new customer created in place of one that was deleted, or refused to be linked",
        CustomerSettings,
        "customer_provisioner.commands:replace_customer",
        _reprovision_arguments,
        (f"{{}} {_ID}",),
    ),
    MAKE_API_KEY,
)

SERVICE: Final = Service(
    name="customer-provisioner",
    purpose="Creates one Stripe customer for each user, and announces it to the other services.",
    settings=Settings,
    serve="customer_provisioner.app:serve",
    checks="customer_provisioner.checks:CHECKS",
    migrate=lambda url: nexus_database.migrate(url, "customer_provisioner"),
    faults="customer_provisioner.commands:FAULTS",
    commands=COMMANDS,
)
