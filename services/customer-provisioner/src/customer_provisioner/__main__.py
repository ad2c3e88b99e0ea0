"""The command ``customer-provisioner``."""

import sys

from customer_provisioner.app import NAME, checks, migrate_database, serve
from customer_provisioner.commands import COMMANDS, run_command
from customer_provisioner.settings import Settings
from nexus_messaging.command import Service, run

SERVICE = Service(
    name=NAME,
    purpose=(
        "Creates one Stripe customer for each user, and tells the other services about it. "
        f"Further commands, each with --help: {', '.join(COMMANDS)}."
    ),
    settings=Settings,
    serve=serve,
    checks=checks,
    migrate=migrate_database,
)


def main() -> None:
    """Run the command line and exit."""
    arguments = sys.argv[1:]
    ours = bool(arguments) and arguments[0] in COMMANDS
    sys.exit(run_command(arguments) if ours else run(SERVICE, arguments))


if __name__ == "__main__":
    main()
