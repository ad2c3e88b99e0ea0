"""The totals by hour are what a scan of the ledger finds, as the service's own command says."""

from typing import Final

from local_stack.catalogue import SERVICES, base_environment
from local_stack.programs import ProgramFailedError, run_program
from metering_chaos.environment import Environment, in_thread
from metering_chaos.plan import INGEST

SECONDS: Final = 60.0


async def verify_totals(environment: Environment) -> None:
    """Compare the totals with the ledger; what differs is unexpected."""
    [ingest] = [plan for plan in SERVICES if plan.name == INGEST]
    command = [*ingest.command("totals"), "--verify"]
    settings = base_environment() | {"DATABASE_URL": environment.stack.database_url(INGEST)}
    try:
        await in_thread(lambda: run_program(command, env=settings, seconds=SECONDS))
    except ProgramFailedError as error:
        environment.note_unexpected(f"totals --verify {error.why}: {error.output}")
