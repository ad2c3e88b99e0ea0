"""Does a service's memory stay bounded, whatever waits for it? Real processes on real servers.

Each scenario piles something up, starts the services on it and prints how much memory each took at
its peak, and how fast the pile went.
"""

import argparse
import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from local_stack.provision import provide_broker, provide_postgres
from local_stack.servers import Broker, Database
from rig.databases import make_database
from rig.endurance import SCENARIOS
from rig.platform import Platform
from rig.vhost import Vhost

SERVICES: Final = ("customer_provisioner", "usage_ingest", "stripe_reporter")


@asynccontextmanager
async def prepared(broker: Broker, postgres: Database, directory: Path) -> AsyncIterator[Platform]:
    """Offer services that can be started, with the tiers' real waits, on a fresh vhost."""
    password = secrets.token_hex(16)
    databases = {service: await make_database(postgres, service, password) for service in SERVICES}
    vhost = Vhost(broker, f"metering-{secrets.token_hex(4)}", password)
    await vhost.create(tier_scale=1.0)
    settings = {
        "STRIPE_MAX_CALLS_PER_SECOND": "800",
        "REPORT_WINDOW_SECONDS": "10",
        "LOG_LEVEL": "WARNING",
    }
    platform = Platform(vhost, databases, directory, settings=settings)
    try:
        yield platform
    finally:
        platform.stop()
        await vhost.delete()


async def main(names: Sequence[str], messages: int, seconds: float) -> None:
    """Start servers of its own, measure each scenario on a fresh vhost, and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            provide_broker(directory / "rabbitmq") as broker,
            provide_postgres(directory / "postgres") as postgres,
        ):
            for scenario in names:
                async with prepared(broker, postgres, directory / scenario) as platform:
                    measured = await SCENARIOS[scenario](platform, messages, seconds)
                load = os.getloadavg()[0]
                print(f"memory: {messages} {measured}; load average {load:.1f}", flush=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    options.add_argument("--messages", type=int, default=1_000_000, help="how many (1000000)")
    options.add_argument("--seconds", type=float, default=600, help="at most for each step (600)")
    chosen = options.parse_args()
    asyncio.run(main(chosen.scenarios or list(SCENARIOS), chosen.messages, chosen.seconds))
