"""`metering-dashboards DIRECTORY` writes every dashboard there as JSON."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from metering_dashboards import broker, customers, ingest, overview, postgres, reporter
from metering_dashboards.panels import build

DASHBOARDS: Final = (overview, ingest, reporter, customers, broker, postgres)


def dashboards() -> Iterator[tuple[str, str]]:
    """Yield each dashboard's file name and its JSON."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    for module in DASHBOARDS:
        built = build(module.NAME, module.TITLE, module.DESCRIPTION, module.SECTIONS).build()
        yield f"{module.NAME}.json", encoder.encode(built) + "\n"


def main() -> None:
    """Write the dashboards to the directory given."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its one argument
        sys.exit("usage: metering-dashboards DIRECTORY")
    for name, text in dashboards():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
