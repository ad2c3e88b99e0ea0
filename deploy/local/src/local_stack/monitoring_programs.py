"""Prometheus and PostgreSQL's exporter: the installed ones, else Debian's packages unpacked."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from local_stack.debian_packages import PackagesUnavailableError, PrivateApt, exclusive, unpacking
from local_stack.errors import LocalStackError

_PROMETHEUS = "prometheus"
_EXPORTER = "prometheus-postgres-exporter"
# Debian 13 has promtool in its own package; every Debian has the pages' scripts in others.
_KEPT = ("prometheus", "promtool", "libjs-", "fonts-glyphicons")
# 212 MB that the pages do not use.
_SUPERFLUOUS = "usr/share/javascript/moment-timezone/data"
_WHAT_TO_INSTALL = (
    "Prometheus is not installed and cannot be fetched here. Install it"
    f" (Debian: apt-get install -y --no-install-recommends {_PROMETHEUS} {_EXPORTER})"
)


class MonitoringUnavailableError(LocalStackError):
    """Prometheus cannot be run here; the text says what to install."""


@dataclass(frozen=True, slots=True)
class MonitoringPrograms:
    """The programs that monitor the stack.

    Attributes:
        prometheus: The server.
        promtool: Its tool, which checks configurations and rules.
        exporter: PostgreSQL's exporter; ``None`` where there is none.
        pages: The web pages of an unpacked server; an installed one finds its own.
    """

    prometheus: Path
    promtool: Path
    exporter: Path | None
    pages: Path | None


def monitoring_programs(unpack_into: Path) -> MonitoringPrograms:
    """Find Prometheus: installed, unpacked before, or fetched now from Debian's packages.

    Args:
        unpack_into: Where packages are unpacked, up to 200 MB, kept for the next time.

    Raises:
        MonitoringUnavailableError: If none of the three works here.
    """
    found = _found(unpack_into)
    if found is not None and found.exporter is not None:
        return found
    why = ""
    with exclusive(unpack_into):
        found = _found(unpack_into)
        if found is None or found.exporter is None:
            try:
                _fetch(unpack_into)
            except PackagesUnavailableError as error:
                why = f": {error}"
            found = _found(unpack_into)
    if found is None:
        raise MonitoringUnavailableError(f"{_WHAT_TO_INSTALL}{why}")
    return found


def _found(unpacked: Path) -> MonitoringPrograms | None:
    """Find what is installed or unpacked; ``None`` without a Prometheus."""
    programs = {name: _program(name, unpacked) for name in (_PROMETHEUS, "promtool", _EXPORTER)}
    prometheus, promtool, exporter = programs.values()
    if prometheus is None or promtool is None:
        return None
    pages = unpacked.absolute() / "usr/share/prometheus/web"
    own = prometheus.is_relative_to(unpacked.absolute())
    return MonitoringPrograms(prometheus, promtool, exporter, pages if own else None)


def _program(name: str, unpacked: Path) -> Path | None:
    installed = shutil.which(name)
    path = Path(installed) if installed else unpacked.absolute() / "usr/bin" / name
    return path if path.exists() else None


def _fetch(directory: Path) -> None:
    with unpacking(directory) as (work, root):
        # As if nothing were installed, so that the pages' scripts are unpacked beside the server.
        apt = PrivateApt(work / "apt", Path(os.devnull))
        apt.unpack(root, _PROMETHEUS, _EXPORTER, kept=_KEPT)
        shutil.rmtree(root / _SUPERFLUOUS, ignore_errors=True)
