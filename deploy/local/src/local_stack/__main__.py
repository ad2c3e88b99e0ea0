"""Runs the whole stack on this machine: up, tried out, down."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from local_stack import commands
from local_stack.catalogue import EXAMPLE_PLANS, OPERATORS_PROGRAMS
from local_stack.errors import LocalStackError
from local_stack.output import exit_code_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 if all is well, 1 if not, 130 on Ctrl-C, 141 on a broken pipe."""
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parsed = _parser().parse_args(arguments)
    directory = parsed.directory.absolute()
    try:
        match parsed.command:
            case "up":
                code = commands.up(directory, _of_supervise(parsed), _say)
            case "supervise":
                commands.supervise(
                    directory, parsed.tier_scale, parsed.component, parsed.plans, _say
                )
            case "down":
                code = commands.down(directory, _say)
            case "publish":
                code = commands.publish_example(directory, _say)
            case "run":
                code = commands.run(directory, [parsed.program, *parsed.arguments], _say)
            case _:
                code = commands.status(directory, _say)
    except LocalStackError as error:
        _say(f"local-stack: {error}")
        return 1
    except KeyboardInterrupt:
        _say("stopped")
        return 128 + signal.SIGINT
    return code


def _of_supervise(parsed: argparse.Namespace) -> list[str]:
    component = () if parsed.component is None else ("--component", str(parsed.component))
    return ["--tier-scale", str(parsed.tier_scale), "--plans", str(parsed.plans), *component]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _absolute(path: str) -> Path:
    return Path(path).absolute()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local-stack", description=__doc__)
    parser.add_argument(
        "--directory", type=Path, default=Path(".local/up"), help="where it keeps its data"
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    subparsers.add_parser("down", help="stop it")
    subparsers.add_parser("status", help="say what is where, and what has died")
    subparsers.add_parser("publish", help="publish a new user and a tool run of theirs")
    command = subparsers.add_parser(
        "run", help="run an operator's command, with the settings of the stack"
    )
    command.add_argument("program", choices=OPERATORS_PROGRAMS)
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="such as: usage USER_ID")
    for name, what in (("up", "start it in the background"), ("supervise", "run it until SIGTERM")):
        command = subparsers.add_parser(name, help=what)
        command.add_argument(
            "--tier-scale", type=float, default=1.0, help="factor on the waits between retries"
        )
        command.add_argument(
            "--component", type=_absolute, help="the folder of the built <nexus-usage>"
        )
        command.add_argument(
            "--plans",
            type=_absolute,
            default=EXAMPLE_PLANS,
            help="a file of plans; by another than deploy/plans.yaml there are no demo users",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
