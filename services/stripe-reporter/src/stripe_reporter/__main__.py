"""The command line of stripe-reporter: what every service has, and ``meters ensure``."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

from nexus_messaging.command import FAILED, FINE, USAGE, run
from nexus_messaging.settings import SettingsError, load
from stripe_reporter.app import NAME, SERVICE
from stripe_reporter.checks import ensure_meters
from stripe_reporter.settings import StripeSettings

METERS: Final = "meters"


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:]
    sys.exit(meters(arguments[1:]) if arguments[:1] == [METERS] else run(SERVICE, arguments))


def meters(arguments: Sequence[str]) -> int:
    """Run ``meters ensure``; return the exit code: 0 fine, 1 failed, 2 wrong usage or settings."""
    parser = argparse.ArgumentParser(prog=f"{NAME} {METERS}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("ensure", help="create the meters that Stripe lacks, and verify the others")
    parser.parse_args(arguments)
    try:
        settings = load(StripeSettings)
    except SettingsError as error:
        print(f"{NAME}: settings: {error}", file=sys.stderr)
        return USAGE
    faults = asyncio.run(ensure_meters(settings))
    for event_name, fault in faults.items():
        print(f"meter {event_name}: {fault or 'ok'}")
    return FAILED if any(faults.values()) else FINE


if __name__ == "__main__":
    main()
