"""The command line of stripe-reporter."""

import sys

from nexus_service.command import run
from stripe_reporter.command_line import SERVICE


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(SERVICE))


if __name__ == "__main__":
    main()
