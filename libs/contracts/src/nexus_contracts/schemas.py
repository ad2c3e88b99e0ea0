"""Writes the events as JSON Schemas for publishers in other languages, or checks the files."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from nexus_contracts import ALL_EVENTS, Event, EventData

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
ALL_JSON: Final = ("string", "number", "boolean", "object", "array", "null")
DIRECTORY: Final = Path("libs/contracts/schemas")


def schema_of(
    data: type[EventData], *, mode: Literal["validation", "serialization"] = "validation"
) -> dict[str, Any]:
    """Return the JSON Schema of the whole body, envelope included, that carries ``data``.

    ``validation``: of what is read, which is the published one. ``serialization``: of what we
    write, which is narrower where we read leniently.
    """
    schema = Event[data].model_json_schema(mode=mode)  # type: ignore[valid-type]
    properties = schema["properties"]
    if "JsonValue" in schema.get("$defs", {}):
        # Generators of code make an object of a schema without a type.
        schema["$defs"]["JsonValue"] = {"type": list(ALL_JSON)}
    # Publishers must send these, although the model has defaults or accepts other values.
    properties["type"] = {"const": data.TYPE, "type": "string"}
    properties["specversion"] = {"const": "1.0", "type": "string"}
    required = sorted({*schema["required"], "specversion"})
    return {"$schema": DIALECT, **schema, "title": data.TYPE, "required": required}


def render_schemas() -> dict[str, str]:
    """Return the text of every schema file by its name."""
    return {
        f"{data.TYPE}.json": json.dumps(schema_of(data), indent=2, sort_keys=True) + "\n"
        for data in ALL_EVENTS
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the schema files; return 1 if checking found any out of date."""
    parser = argparse.ArgumentParser(prog="python -m nexus_contracts.schemas", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="bring the files up to date")
    what.add_argument("--check", action="store_true", help="name the files that are out of date")
    parser.add_argument("directory", type=Path, nargs="?", default=DIRECTORY)
    options = parser.parse_args(arguments)
    stale = sorted(_stale(options.directory))
    if options.write:
        _write(options.directory)
        return 0
    for name in stale:
        print(f"{name}: out of date; run with --write", file=sys.stderr)
    return 1 if stale else 0


def _stale(directory: Path) -> set[str]:
    found = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}
    wanted = render_schemas()
    return {name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)}


def _write(directory: Path) -> None:
    wanted = render_schemas()
    for path in directory.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
