"""Does a service's memory stay bounded by any backlog? Real processes on real servers.

Each scenario makes a backlog, starts the services on it and prints each one's peak of resident
memory and the rate at which the backlog was processed.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from local_stack.provision import provide_broker, provide_postgres
from support.load_scenarios import SCENARIOS
from support.platform import standalone_platform

SETTINGS: Final = {
    "STRIPE_MAX_CALLS_PER_SECOND": "800",
    "REPORT_WINDOW_SECONDS": "10",
    "LOG_LEVEL": "WARNING",
}


async def main(names: Sequence[str], messages: int, seconds: float) -> None:
    """Start a broker and a database server, measure each scenario on a fresh vhost, and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with (
            provide_broker(directory / "rabbitmq") as broker,
            provide_postgres(directory / "postgres") as postgres,
        ):
            for scenario in names:
                place = directory / scenario
                async with standalone_platform(broker, postgres, place, SETTINGS) as platform:
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
