"""The command for people: bring the meters at Stripe to what reports need."""

import argparse
from typing import Final

from nexus_messaging.command import FAILED, FINE, Command
from nexus_messaging.console import Finding, Tone, show_findings
from stripe_reporter.checks import ensure_meters
from stripe_reporter.settings import StripeSettings


async def _meters(settings: StripeSettings, _parsed: argparse.Namespace) -> int:
    faults = await ensure_meters(settings)
    show_findings(
        Finding(f"meter {name}") if fault is None else Finding(f"meter {name}", fault, Tone.BAD)
        for name, fault in faults.items()
    )
    return FAILED if any(faults.values()) else FINE


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["ensure"], help="create what is missing, then verify")


COMMANDS: Final = (
    Command(
        "meters",
        "create the meters that Stripe lacks; say what is wrong with the others",
        StripeSettings,
        _meters,
        _arguments,
        ("{} ensure",),
    ),
)
