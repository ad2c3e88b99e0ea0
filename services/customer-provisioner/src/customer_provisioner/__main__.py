"""The command line of customer-provisioner."""

import sys

from customer_provisioner.command_line import SERVICE
from nexus_service.command import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(SERVICE))


if __name__ == "__main__":
    main()
