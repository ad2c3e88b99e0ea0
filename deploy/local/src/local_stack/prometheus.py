"""A Prometheus of our own: the committed configuration and rules, told whom to scrape."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from local_stack.monitoring_programs import MonitoringPrograms
from local_stack.urls import Address

CONFIGURATION: Final = Path(__file__).parents[3] / "prometheus"


def configure(directory: Path, targets: Mapping[str, Address]) -> Path:
    """Copy the configuration and write whom to scrape; return the file to start Prometheus with.

    Args:
        directory: Where to; must not exist.
        targets: Where each job's servers answer, by the name of its file of targets. A job
            without one scrapes nobody.
    """
    shutil.copytree(CONFIGURATION / "rules", directory / "rules")
    (directory / "targets").mkdir()
    for job, address in targets.items():
        groups = [{"targets": [f"{address.host}:{address.port}"]}]
        (directory / "targets" / f"{job}.yml").write_text(json.dumps(groups), encoding="utf-8")
    return Path(shutil.copy(CONFIGURATION / "prometheus.yml", directory))


def prometheus_command(
    programs: MonitoringPrograms, address: Address, configuration: Path, data: Path
) -> list[str]:
    """Build the command that runs Prometheus."""
    command = [
        str(programs.prometheus),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address.host}:{address.port}",
    ]
    if programs.pages is not None:
        # An option of Debian's: elsewhere the pages are within the program.
        command.append(f"--web.local-assets={programs.pages}")
    return command
