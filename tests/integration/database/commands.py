"""The services' commands, run as a person runs them on one database."""

import asyncio
import sys
from dataclasses import dataclass

from local_stack.catalogue import base_environment

NO_BROKER = "amqp://nobody:nothing@127.0.0.1:1/metering"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and all that it said."""

    code: int
    text: str


async def run_command(
    module: str,
    command: str,
    database_url: str,
    *arguments: str,
    amqp_url: str = NO_BROKER,
    stripe_secret_key: str = "sk_test_none",
) -> Ended:
    """Run a service's command; neither broker nor Stripe answer unless they are given."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, command, *arguments),
        env={
            **base_environment(),
            "AMQP_URL": amqp_url,
            "DATABASE_URL": database_url,
            "STRIPE_SECRET_KEY": stripe_secret_key,
            "STRIPE_API_BASE": "http://127.0.0.1:1",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, output.decode())
