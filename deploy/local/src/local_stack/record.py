"""The record of a running stack in its folder: addresses and processes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from local_stack.directory_lock import write_secret
from local_stack.guide import Row, addresses, advice, page, sums_url
from local_stack.identities import ProcessIdentity
from local_stack.sample_dead_letter import SampleDeadLetter
from local_stack.stack import Stack


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """What the commands know of a running stack; it has passwords.

    Attributes:
        addresses: The addresses of every part, as rows of two columns.
        advice: How to publish and how to requeue, in lines.
        publish_to: The AMQP URL of the user that outside services publish as.
        sums: The address of the sums that the local Stripe has counted.
        commands: The settings of operators' commands, by the command.
        processes: The processes by part.
    """

    addresses: tuple[Row, ...]
    advice: tuple[str, ...]
    publish_to: str
    sums: str
    commands: Mapping[str, Mapping[str, str]]
    processes: Mapping[str, ProcessIdentity]

    @classmethod
    def of(cls, stack: Stack, letter: SampleDeadLetter, directory: Path) -> Self:
        """Describe a running stack."""
        found = {name: ProcessIdentity.of(pid) for name, pid in stack.pids.items()}
        return cls(
            addresses=addresses(stack, directory),
            advice=advice(stack, letter, directory),
            publish_to=stack.amqp_url("publisher"),
            sums=sums_url(stack),
            commands=stack.command_settings,
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
            addresses=tuple((name, value) for name, value in document["addresses"]),
            advice=tuple(document["advice"]),
            publish_to=document["publish_to"],
            sums=document["sums"],
            commands=document["commands"],
            processes=processes,
        )

    def write(self, directory: Path) -> None:
        """Write the record in one step, readable by its owner only."""
        processes = {name: [each.pid, each.started] for name, each in self.processes.items()}
        document = asdict(self) | {"processes": processes}
        unfinished = _path(directory).with_suffix(".unfinished")
        write_secret(unfinished, json.dumps(document, indent=2))
        unfinished.rename(_path(directory))

    @classmethod
    def delete(cls, directory: Path) -> None:
        """Delete the record in ``directory``."""
        _path(directory).unlink(missing_ok=True)

    @property
    def dead(self) -> list[str]:
        """The parts that have ended."""
        return [name for name, process in self.processes.items() if not process.alive]

    def page(self) -> str:
        """Write the page that a person reads."""
        return page(self.addresses, self.advice)


def _path(directory: Path) -> Path:
    return directory / "state.json"
