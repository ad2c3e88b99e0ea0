"""The command behind `make demo`."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from local_stack.catalogue import EXAMPLE_PLANS, OPERATOR, StackOptions
from local_stack.errors import LocalStackError
from local_stack.output import exit_code_of
from local_stack.stack import Stack
from metering_demo.compose import compose_stack
from metering_demo.endpoints import Endpoints
from metering_demo.run import UnsettledError, run_scenario
from metering_demo.scenario import make_scenario
from metering_demo.story import Story
from metering_demo.table import holds, last_line, lines

TIER_SCALE = 0.02
CALLS_PER_SECOND = 200
WINDOW = {"REPORT_WINDOW_SECONDS": "10"}
OPTIONS = StackOptions(
    tier_scale=TIER_SCALE,
    max_calls_per_second=CALLS_PER_SECOND,
    grace_seconds=5,
    service_environment={"usage-ingest": WINDOW},
    events_api=True,
    usage_api=True,
    plans_file=EXAMPLE_PLANS,
)
COMPOSE_SETTINGS = {
    "TIER_SCALE": str(TIER_SCALE),
    "STRIPE_MAX_CALLS_PER_SECOND": str(CALLS_PER_SECOND),
    "PLANS_FILE": str(EXAMPLE_PLANS),
    **WINDOW,
}

Say = Callable[[str], None]


def main() -> None:
    """Start the stack, run scenario and story, stop everything; exit 0 only if all is true."""
    sys.exit(exit_code_of(_run))


def _run() -> int:
    arguments = _parser().parse_args()
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {line}", flush=True)

    scenario = make_scenario(
        users=arguments.users,
        runs=arguments.runs,
        duplicates=arguments.runs // 50,
        seed=arguments.seed,
        now=datetime.now(UTC),
    )
    start = STACKS[arguments.stack]
    try:
        with start(arguments.directory, say) as endpoints:
            published, count = asyncio.run(
                run_scenario(scenario, endpoints, say, patience=arguments.patience)
            )
            for line in lines(count):
                print(line)
            chapters = []
            for chapter in Story(endpoints, arguments.patience).tell():
                print(chapter.line(), flush=True)
                chapters.append(chapter)
    except (UnsettledError, LocalStackError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    print()
    print(last_line(count, published, time.monotonic() - began))
    return 0 if holds(count, published) and all(each.holds for each in chapters) else 1


@contextmanager
def _processes(directory: Path, say: Say) -> Iterator[Endpoints]:
    with Stack.start(directory, OPTIONS, say) as stack:
        yield Endpoints(
            publisher_amqp=stack.amqp_url("publisher"),
            operator_amqp=stack.amqp_url(OPERATOR),
            management=stack.broker.management_url,
            operator=stack.operator,
            admin=stack.broker.admin,
            ledger=stack.database_url("usage-ingest"),
            ingest=stack.http_url("usage-ingest"),
            events_api=stack.events_api_url,
            provisioner=stack.http_url("customer-provisioner"),
            usage_api=stack.usage_api_url,
            api_key=stack.api_key,
            accounts_key=stack.accounts_key,
            emulator=stack.emulator_url,
            stripe_key=stack.stripe_key,
        )


@contextmanager
def _containers(directory: Path, say: Say) -> Iterator[Endpoints]:
    with compose_stack(directory / "docker", COMPOSE_SETTINGS, say) as endpoints:
        yield endpoints


STACKS = {"local": _processes, "docker": _containers}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metering-demo",
        description="Run the main job on the real parts, with faults, and count every tool run.",
    )
    parser.add_argument(
        "--stack",
        choices=STACKS,
        default="local",
        help="processes of this machine, or containers by docker-compose.yml (default local)",
    )
    parser.add_argument("--runs", type=int, default=1000, help="tool runs (default 1000)")
    parser.add_argument("--users", type=int, default=25, help="users (default 25)")
    parser.add_argument("--seed", type=int, default=7, help="repeats a scenario (default 7)")
    parser.add_argument(
        "--patience", type=float, default=90, help="seconds until it gives up (default 90)"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(".local/demo"),
        help="where the servers keep their data (default .local/demo)",
    )
    return parser


if __name__ == "__main__":
    main()
