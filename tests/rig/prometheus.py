"""A Prometheus with the project's own configuration and rules, and whom to scrape."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

from local_stack.loopback import answers, fetch
from local_stack.ports import LOOPBACK, free_ports
from local_stack.processes import Child

ROOT: Final = Path(__file__).parent.parent.parent
CONFIGURATION: Final = ROOT / "deploy" / "prometheus"
PROGRAMS: Final = ROOT / ".local" / "prometheus"


def program(name: str) -> Path:
    """Find ``prometheus`` or ``promtool``: installed, or else unpacked from Debian's package.

    Raises:
        RuntimeError: there is neither; the text says what to install.
    """
    installed = shutil.which(name)
    if installed:
        return Path(installed)
    if not (PROGRAMS / "usr" / "bin" / name).exists():
        _unpack()
    return PROGRAMS / "usr" / "bin" / name


def _unpack() -> None:
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    try:
        _run(["apt-get", "-qq", "download", "prometheus"])
        [package] = PROGRAMS.glob("prometheus_*.deb")
        _run(["dpkg-deb", "-x", package.name, "."])
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise RuntimeError(
            "tests need prometheus: apt-get install prometheus, or apt-get update"
        ) from error


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=PROGRAMS, check=True, capture_output=True)


class LivePrometheus:
    """A running Prometheus; ``every`` is how often it scrapes and evaluates, in seconds."""

    def __init__(self, child: Child, url: str) -> None:
        self.url = url
        self._child = child

    @classmethod
    def start(cls, directory: Path, targets: Mapping[str, str], *, every: int = 15) -> Self:
        """Start it on the committed configuration and wait until it is ready.

        Args:
            directory: Where it keeps its copy of the configuration, and its data.
            targets: The address of each file of targets, by the file's name.
            every: The committed 15 seconds, or fewer to be done sooner.
        """
        shutil.copytree(CONFIGURATION / "rules", directory / "rules")
        text = (CONFIGURATION / "prometheus.yml").read_text(encoding="utf-8")
        assert text.count(": 15s") == 2
        text = text.replace("scrape_timeout: 10s", f"scrape_timeout: {min(every, 10)}s")
        text = text.replace(": 15s", f": {every}s")
        (directory / "prometheus.yml").write_text(text, encoding="utf-8")
        (directory / "targets").mkdir()
        for name, address in targets.items():
            file = directory / "targets" / f"{name}.yml"
            file.write_text(json.dumps([{"targets": [address]}]), encoding="utf-8")
        [port] = free_ports(None)
        url = f"http://{LOOPBACK}:{port}"
        command: list[str | Path] = [
            program("prometheus"),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={LOOPBACK}:{port}",
        ]
        child = Child.start("prometheus", command, log=directory / "prometheus.log", env={})
        live = cls(child, url)
        try:
            child.wait_until(lambda: answers(f"{url}/-/ready"), seconds=30)
        except BaseException:
            live.stop()
            raise
        return live

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, each with ``metric`` and ``value``."""
        answer = json.loads(fetch(f"{self.url}/api/v1/query?{urlencode({'query': expr})}"))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = json.loads(fetch(f"{self.url}/api/v1/alerts"))["data"]["alerts"]
        return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}

    def stop(self) -> None:
        """Stop it."""
        self._child.stop(grace=10)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()
