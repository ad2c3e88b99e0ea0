"""The record a running stack leaves in its folder: what is where, and which processes it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from local_stack.identities import ProcessIdentity
from local_stack.stack import Stack


@dataclass(frozen=True, slots=True)
class Record:
    """What there is to know about a running stack; it holds passwords.

    Attributes:
        places: What is where, as lines of two columns.
        processes: The processes by part.
    """

    places: tuple[tuple[str, str], ...]
    processes: Mapping[str, ProcessIdentity]

    @classmethod
    def of(cls, stack: Stack, directory: Path) -> Self:
        """Describe a running stack."""
        found = {name: ProcessIdentity.of(pid) for name, pid in stack.pids.items()}
        processes = {name: each for name, each in found.items() if each is not None}
        return cls(_places(stack, directory), processes)

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Read the record in ``directory``; ``None`` if no stack became ready there."""
        path = _path(directory)
        if not path.exists():
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
        processes = {
            name: ProcessIdentity(pid, started)
            for name, (pid, started) in document["processes"].items()
        }
        return cls(tuple((name, place) for name, place in document["places"]), processes)

    def write(self, directory: Path) -> None:
        """Write the record at once and whole, for its owner's eyes only."""
        processes = {name: [each.pid, each.started] for name, each in self.processes.items()}
        document = {"places": self.places, "processes": processes}
        unfinished = _path(directory).with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(document, indent=2), encoding="utf-8")
        unfinished.rename(_path(directory))

    @classmethod
    def forget(cls, directory: Path) -> None:
        """Delete the record in ``directory``."""
        _path(directory).unlink(missing_ok=True)

    @property
    def dead(self) -> list[str]:
        """The parts that no longer run."""
        return [name for name, process in self.processes.items() if not process.alive]

    def page(self) -> str:
        """Write what is where in two columns."""
        width = max(len(name) for name, _ in self.places)
        return "\n".join(f"  {name:<{width}}  {place}" for name, place in self.places)


def _path(directory: Path) -> Path:
    return directory / "state.json"


def _places(stack: Stack, directory: Path) -> tuple[tuple[str, str], ...]:
    operator = stack.operator
    return (
        ("management UI", f"{stack.broker.management_url}  {operator.user} / {operator.password}"),
        ("publish to", stack.amqp_url("publisher")),
        ("local Stripe", f"{stack.emulator_url}  key {stack.stripe_key}"),
        *((name, f"{server.url}/metrics") for name, server in stack.services.items()),
        ("RabbitMQ metrics", stack.broker.metrics_url),
        *((f"{name}'s database", stack.database_url(name)) for name in stack.services),
        ("logs", str(directory / "logs")),
    )
