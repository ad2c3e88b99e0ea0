"""Writes the file's JSON Schema, or checks that it is up to date."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nexus_plans.schema import schema

FILE: Final = Path("libs/plans/schema/plans.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the schema; return 1 if checking found it out of date."""
    parser = argparse.ArgumentParser(prog="python -m nexus_plans", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="bring the file up to date")
    what.add_argument("--check", action="store_true", help="fail if the file is out of date")
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    options = parser.parse_args(arguments)
    text = json.dumps(schema(), indent=2, sort_keys=True) + "\n"
    if options.write:
        options.file.parent.mkdir(parents=True, exist_ok=True)
        options.file.write_text(text, encoding="utf-8")
        return 0
    if not options.file.exists() or options.file.read_text(encoding="utf-8") != text:
        print(f"{options.file}: out of date; run with --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
