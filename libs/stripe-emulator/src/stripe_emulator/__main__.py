"""The command: ``stripe-emulator serve``."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from stripe_emulator.options import Options
from stripe_emulator.running import (
    DEFAULT_KEY,
    DEFAULT_WEBHOOK_SECRET,
    LiveKeyError,
    Webhook,
    running_emulator,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        asyncio.run(_serve(parsed))
    except (LiveKeyError, OSError) as error:
        sys.stderr.write(f"stripe-emulator: {error}\n")
        return 1
    return 0


async def _serve(parsed: argparse.Namespace) -> None:
    options = Options(
        call_seconds=parsed.call_seconds, webhook_retry_scale=parsed.webhook_retry_scale
    )
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    keys = parsed.key or [DEFAULT_KEY]
    webhooks = [Webhook(each.url, each.secret, each.events or ["*"]) for each in parsed.webhook]
    async with running_emulator(
        keys, parsed.meter, options, parsed.host, parsed.port, webhooks
    ) as emulator:
        sys.stdout.write(f"stripe-emulator listens on {emulator.url}\n")
        sys.stdout.flush()
        await stopped.wait()


@dataclass
class _Endpoint:
    url: str
    secret: str = DEFAULT_WEBHOOK_SECRET
    events: list[str] = field(default_factory=list)


class _OfLastEndpoint(argparse.Action):
    """An option of the ``--webhook`` before it."""

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if not namespace.webhook:
            parser.error(f"{option_string}: of which --webhook? It comes after it")
        endpoint = namespace.webhook[-1]
        if self.dest == "webhook_secret":
            endpoint.secret = values
        else:
            endpoint.events.append(values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stripe-emulator", description="A local Stripe.")
    serve = parser.add_subparsers(dest="command", required=True).add_parser(
        "serve", help="listen until interrupted; all state is in memory"
    )
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=12111)
    serve.add_argument(
        "--key", action="append", help=f"a valid API key, may be repeated (default {DEFAULT_KEY})"
    )
    serve.add_argument(
        "--meter",
        action="append",
        default=[],
        metavar="EVENT_NAME",
        help="a summing meter to start with, may be repeated",
    )
    serve.add_argument(
        "--webhook",
        action="append",
        default=[],
        type=_Endpoint,
        metavar="URL",
        help="an endpoint that gets events, may be repeated; what follows is of this one",
    )
    serve.add_argument(
        "--webhook-secret",
        action=_OfLastEndpoint,
        metavar="SECRET",
        help=f"what its events are signed with (default {DEFAULT_WEBHOOK_SECRET})",
    )
    serve.add_argument(
        "--webhook-event",
        action=_OfLastEndpoint,
        metavar="TYPE",
        help="a type of event that it gets, may be repeated (default all)",
    )
    serve.add_argument(
        "--webhook-retry-scale",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="multiplies the waits between attempts, which take three days in all",
    )
    serve.add_argument("--call-seconds", type=float, default=0.0, help="how long a POST takes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
