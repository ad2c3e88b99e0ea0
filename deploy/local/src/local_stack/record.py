"""The record a running stack leaves in its folder: what is where, and which processes it is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from local_stack.guide import Place, advice, page, places, sums_url
from local_stack.identities import ProcessIdentity
from local_stack.practice import PracticeLetter
from local_stack.stack import Stack


@dataclass(frozen=True, slots=True)
class Record:
    """What there is to know about a running stack; it holds passwords.

    Attributes:
        places: What is where, as lines of two columns.
        advice: How to publish and how to requeue, in lines.
        publish_to: The AMQP URL of the user that outside services publish as.
        sums: Where the local Stripe says what it has counted.
        processes: The processes by part.
    """

    places: tuple[Place, ...]
    advice: tuple[str, ...]
    publish_to: str
    sums: str
    processes: Mapping[str, ProcessIdentity]

    @classmethod
    def of(cls, stack: Stack, letter: PracticeLetter, directory: Path) -> Self:
        """Describe a running stack."""
        found = {name: ProcessIdentity.of(pid) for name, pid in stack.pids.items()}
        return cls(
            places=places(stack, directory),
            advice=advice(stack, letter, directory),
            publish_to=stack.amqp_url("publisher"),
            sums=sums_url(stack),
            processes={name: each for name, each in found.items() if each is not None},
        )

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
        return cls(
            places=tuple((name, place) for name, place in document["places"]),
            advice=tuple(document["advice"]),
            publish_to=document["publish_to"],
            sums=document["sums"],
            processes=processes,
        )

    def write(self, directory: Path) -> None:
        """Write the record at once and whole, for its owner's eyes only."""
        processes = {name: [each.pid, each.started] for name, each in self.processes.items()}
        document = asdict(self) | {"processes": processes}
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
        """Write the page that a person reads."""
        return page(self.places, self.advice)


def _path(directory: Path) -> Path:
    return directory / "state.json"
