"""The command for people: bring the meters at Stripe to what reports need."""

import argparse
from typing import Final

from nexus_messaging.command import FAILED, FINE, Command
from stripe_reporter.checks import ensure_meters
from stripe_reporter.settings import StripeSettings


async def _meters(settings: StripeSettings, _parsed: argparse.Namespace) -> int:
    faults = await ensure_meters(settings)
    for event_name, fault in faults.items():
        print(f"meter {event_name}: {fault or 'ok'}")
    return FAILED if any(faults.values()) else FINE


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["ensure"], help="create and verify")


COMMANDS: Final = (
    Command(
        "meters",
        "create the meters that Stripe lacks; say what is wrong with the others",
        StripeSettings,
        _meters,
        _arguments,
    ),
)
