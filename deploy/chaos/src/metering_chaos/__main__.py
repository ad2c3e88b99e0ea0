"""The command behind `make chaos`."""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from local_stack.errors import LocalStackError
from local_stack.output import exit_code_of
from metering_chaos.environment import Say
from metering_chaos.run import Outcome, Parameters, run_chaos

FINDINGS_SHOWN = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run chaos; returns 0 only if everything adds up, 130 if interrupted, 141 on a broken pipe."""
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parsed = _parser().parse_args(arguments)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {line}", flush=True)

    _silence_libraries()
    parameters = Parameters(
        parsed.events, parsed.faults, parsed.seed, parsed.minutes, parsed.uncounted
    )
    say(f"{parameters}")
    try:
        outcome = asyncio.run(_stoppable(parameters, parsed.directory, say))
    except (LocalStackError, TimeoutError) as error:
        say(f"chaos: {error}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("chaos: stopped")
        return 128 + signal.SIGINT
    _show(outcome, parameters, time.monotonic() - began)
    return 0 if outcome.verdict.clean else 1


async def _stoppable(parameters: Parameters, directory: Path, say: Say) -> Outcome:
    """Run, and let SIGTERM end it as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run_chaos(parameters, directory, say)


def _silence_libraries() -> None:
    """Drop the AMQP libraries' log lines: they write one for each of many lost connections."""
    for name in ("aiormq", "aio_pika"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _show(outcome: Outcome, parameters: Parameters, seconds: float) -> None:
    for finding in outcome.verdict.findings[:FINDINGS_SHOWN]:
        print(f"{finding.violation}: {finding.what}")
    for what in outcome.unexpected:
        print(f"unexpected: {what}")
    for letters in outcome.to_move:
        print(f"dead-lettered without a fault in the message: {letters}")
    observed = (f"{count} {what}" for what, count in sorted(outcome.observed.items()))
    print(f"observed: {'; '.join(observed)}")
    kinds = " ".join(f"{kind}={count}" for kind, count in sorted(outcome.faults.items()))
    print(f"faults: {kinds}")
    print(
        f"chaos: events={outcome.events} faults={outcome.faults.total()} {outcome.verdict}"
        f" seed={parameters.seed} seconds={seconds:.0f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metering-chaos",
        description="Random faults on the real parts under load; every event counted to the money.",
    )
    parser.add_argument("--events", type=int, default=20_000, help="tool runs (default 20000)")
    parser.add_argument("--faults", type=int, default=60, help="faults (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="repeats load and faults (default 1)")
    parser.add_argument("--minutes", type=float, default=5, help="bound of the run (default 5)")
    parser.add_argument(
        "--uncounted",
        type=float,
        metavar="SHARE",
        help="let Stripe leave out such a share of what it accepts, and check its sums a day later;"
        " 0: only check them (default: neither)",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(".local/chaos"),
        help="where the servers keep their data and logs (default .local/chaos)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
