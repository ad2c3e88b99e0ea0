"""Holds the contracts against every release of them, and keeps those of a new release.

`released/<version>/` has, for ever, what a release promised: its schemas, its golden messages as
bytes, and their meanings, which is what that release read from them.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

from nexus_contracts import ALL_EVENTS, Event, EventData, read_event
from nexus_contracts.compatibility import Contract, breaks
from nexus_contracts.schemas import render_schemas, schema_of

CONTRACTS: Final = Path("libs/contracts")


def contract_of(data: type[EventData]) -> Contract:
    """Return an event as the gate compares it."""
    return Contract(data.TYPE, schema_of(data), schema_of(data, mode="serialization"))


def meaning_of(event: Event[EventData]) -> str:
    """Return what was read, as JSON text that two releases write alike for the same meaning."""
    read = json.loads(event.model_dump_json())
    return json.dumps(read, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def all_breaks(directory: Path, contracts: Sequence[Contract]) -> Iterator[str]:
    """Yield how ``contracts`` break those of any release in ``directory``, a sentence each."""
    by_name = {contract.name: contract for contract in contracts}
    for path in sorted(directory.glob("*/schemas/*.json")):
        version = path.parts[-3]
        contract = by_name.get(path.stem)
        if contract is None:
            yield f"{path.stem}: removed; release {version} has it"
        else:
            yield from breaks(contract, json.loads(path.read_text(encoding="utf-8")), version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the contracts, or keep them as a release's; return 1 if they break a release."""
    parser = argparse.ArgumentParser(prog="python -m nexus_contracts.releases", description=__doc__)
    parser.add_argument("--contracts", type=Path, default=CONTRACTS, help="the package's folder")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="name every contract that breaks one of a release")
    keep = commands.add_parser("keep", help="keep the contracts as those of a new release")
    keep.add_argument("version")
    options = parser.parse_args(arguments)

    released: Path = options.contracts / "released"
    faults = sorted(set(all_breaks(released, [contract_of(data) for data in ALL_EVENTS])))
    if options.command == "keep" and not faults:
        faults = list(_keep(options.contracts, released / options.version))
    if options.command == "check":
        faults += _forgotten(released, installed_version("nexus-contracts"))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def _keep(contracts: Path, release: Path) -> Iterator[str]:
    """Write the folder of a release; yield why it can't be, and then nothing is written."""
    if release.exists():
        yield f"{release}: is there, and a release never changes"
        return
    messages = {path.name: path for path in sorted((contracts / "tests/golden").glob("*.json"))}
    read = {name: read_event(path.read_bytes(), ALL_EVENTS) for name, path in messages.items()}

    for folder in ("schemas", "messages", "meanings"):
        (release / folder).mkdir(parents=True)
    for name, text in render_schemas().items():
        (release / "schemas" / name).write_text(text, encoding="utf-8")
    for name, path in messages.items():
        (release / "messages" / name).write_bytes(path.read_bytes())
    for name, event in read.items():
        (release / "meanings" / name).write_text(meaning_of(event), encoding="utf-8")


def _forgotten(released: Path, version: str) -> Sequence[str]:
    if "dev" in version or (released / version).exists():
        return ()
    return (f"release {version}: its contracts are not kept; run `keep {version}`",)


if __name__ == "__main__":
    sys.exit(main())
