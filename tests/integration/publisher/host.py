"""A host service in small: it publishes as its first argument says, in a process of its own.

Each call prints the outcome and the event's id, after it returned, so that whoever reads the output
of a killed process knows what it was promised.
"""

import asyncio
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from nexus_publisher import InMemory, Publisher, Result, Stored
from nexus_publisher.amqp import AmqpTransport
from nexus_publisher.entitlements import Entitlements
from nexus_publisher.http import HttpTransport
from nexus_publisher.transport import Transport

STEADY_SECONDS: Final = 0.002
REST_SECONDS: Final = 0.5
INTERRUPTS: Final = 300
ASK_SECONDS: Final = 2.0
USER: Final = uuid4()
NAMES: Final = {Stored: "stored", InMemory: "in_memory"}


def say(*words: object) -> None:
    """Print a line in one write."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def record(publisher: Publisher) -> Result:
    """Record a tool run and say its outcome."""
    result = publisher.tool_executed(
        user_id=uuid4(),
        server_id="weather",
        tool_name="forecast",
        origin="hub",
        status="succeeded",
        metadata={"pid": os.getpid()},
    )
    say(NAMES.get(type(result), "dropped"), result.event_id)
    return result


def steady(publisher: Publisher) -> None:
    """Record until killed."""
    while True:
        record(publisher)
        time.sleep(STEADY_SECONDS)


def flush(publisher: Publisher) -> None:
    """Send what others left."""
    say("flushed" if publisher.flush(60) else "waiting")


def leave(publisher: Publisher) -> None:
    """Record when the publisher rests, and let the interpreter end at once."""
    time.sleep(REST_SECONDS)
    for _ in range(20):
        record(publisher)


def in_a_loop(publisher: Publisher) -> None:
    """Record within an event loop that ends at once, and let the interpreter end."""

    async def main() -> None:
        record(publisher)

    asyncio.run(main())


def wait_for_sigterm(publisher: Publisher) -> None:
    """Record and sleep until a signal ends the process."""
    record(publisher)
    say("ready")
    time.sleep(60)


def wait_with_a_handler(publisher: Publisher) -> None:
    """Record and end by the host's own handler of SIGTERM."""
    handle_sigterm()
    wait_for_sigterm(publisher)


def handle_sigterm() -> None:
    """End as the host chose to."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))


def interrupted(publisher: Publisher) -> None:
    """Record while signal handlers raise, which is caught, and afterwards."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupts = 0
    while interrupts < INTERRUPTS:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.random() / 1000)  # noqa: S311 - moments
            while True:
                record(publisher)
        except KeyboardInterrupt:
            interrupts += 1
    for _ in range(20):
        say("last", type(record(publisher)).__name__)


def fork(publisher: Publisher) -> None:
    """Record in the parent, then in children that fork in the middle of it, and in the parent."""
    for _ in range(100):
        record(publisher)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=record_and_flush, args=(publisher,)) for _ in range(3)]
    for child in children:
        child.start()
        record(publisher)
    for child in children:
        child.join(30)
        say("child", child.exitcode)
    say("flushed" if publisher.flush(20) else "waiting")


def record_and_flush(publisher: Publisher) -> None:
    """Record in a child and send it."""
    for _ in range(100):
        record(publisher)
    if not publisher.flush(20):
        sys.exit(1)


def ask(entitlements: Entitlements, who: str = "") -> None:
    """Ask for a run of the same user, and say the answer."""
    decision = entitlements.allowed(USER, "weather", "forecast", otherwise="closed")
    say(f"{who} {decision.why}".strip())


def fork_entitlements(entitlements: Entitlements) -> None:
    """Ask in the parent, then in children, then in the parent again."""
    ask(entitlements, "parent")
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        child = context.Process(target=ask, args=(entitlements, "child"))
        child.start()
        child.join(30)
    ask(entitlements, "parent")


def leave_entitlements(entitlements: Entitlements) -> None:
    """Ask, and let the interpreter end while the request is under way."""
    ask(entitlements)


def leave_looking_up_entitlements(entitlements: Entitlements) -> None:
    """Ask, and let the interpreter end while the host's name is looked up."""
    socket.getaddrinfo = lambda *_, **__: time.sleep(600)  # type: ignore[assignment]
    ask(entitlements)


def transport_of(options: dict[str, Any]) -> Transport:
    """Return the transport that the options name."""
    if "amqp" in options:
        return AmqpTransport([options["amqp"]])
    return HttpTransport(options["http"], options.get("key", "a-key"))


def main() -> None:
    """Run the part of the host that is asked for."""
    name, options = sys.argv[1], json.loads(sys.argv[2])
    if name.endswith("_entitlements"):
        globals()[name](Entitlements(options["http"], "a-key", budget_seconds=ASK_SECONDS))
        return
    spool = options.get("spool")
    if options.get("handler"):
        handle_sigterm()
    publisher = Publisher(
        transport_of(options),
        source="test/host",
        spool=None if spool is None else Path(spool),
        drain_seconds=options.get("drain_seconds", 2.0),
    )
    globals()[name](publisher)


if __name__ == "__main__":
    main()
