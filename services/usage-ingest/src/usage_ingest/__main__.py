"""The command line of usage-ingest."""

import sys

from nexus_service.command import run
from usage_ingest.command_line import SERVICE


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(SERVICE))


if __name__ == "__main__":
    main()
