"""The command line of customer-provisioner."""

import sys

from customer_provisioner.app import CHECKS, NAME, serve
from customer_provisioner.commands import COMMANDS, FAULTS
from customer_provisioner.settings import Settings
from nexus_database import MigrationError, UnfitDatabaseError, migrate
from nexus_service.command import Service, run

SERVICE = Service(
    name=NAME,
    purpose="Creates one Stripe customer for each user, and announces it to the other services.",
    settings=Settings,
    serve=serve,
    checks=CHECKS,
    migrate=lambda url: migrate(url, "customer_provisioner"),
    faults=(MigrationError, UnfitDatabaseError, *FAULTS),
    commands=COMMANDS,
)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(SERVICE))


if __name__ == "__main__":
    main()
