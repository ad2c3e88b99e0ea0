"""The command line of nexus-outbox."""

import sys

from nexus_outbox.command_line import SERVICE
from nexus_service.command import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(SERVICE))


if __name__ == "__main__":
    main()
