"""The stack's monitoring: Prometheus, and PostgreSQL's exporter, which it scrapes."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from local_stack.catalogue import base_environment
from local_stack.errors import LocalStackError
from local_stack.loopback import answers
from local_stack.monitoring_programs import MonitoringPrograms, monitoring_programs
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from local_stack.urls import Address

_PROMETHEUS = "prometheus"
_EXPORTER = "postgres-exporter"

CONFIGURATION: Final = Path(__file__).parents[3] / "prometheus"
"""Prometheus' committed configuration and rules."""

# Where fetched programs are kept, below the folder the command was called in (the checkout).
UNPACKED = Path(".local/prometheus-programs")
_STANDARD_PORTS = {_PROMETHEUS: 9090, _EXPORTER: 9187}
_GRACE_SECONDS = 10.0


class Monitoring:
    """Prometheus and PostgreSQL's exporter, where this machine can have them.

    The stack runs without them: what can't be had or does not start is reported and left out.

    Attributes:
        servers: What runs, by name.
    """

    def __init__(
        self, directory: Path, on_start: Callable[[], None], *, standard_ports: bool
    ) -> None:
        """Prepare.

        Args:
            directory: The stack's, of which ``monitoring`` is kept here, and the logs beside.
            on_start: Called after each start, when there is one more process.
            standard_ports: Whether to take the usual ports where they are free.
        """
        self.servers: dict[str, ServerProcess] = {}
        self._directory = directory / "monitoring"
        self._logs = directory / "logs"
        self._on_start = on_start
        self._standard_ports = standard_ports

    def start(
        self, targets: Mapping[str, Address], database_url: str, say: Callable[[str], None]
    ) -> None:
        """Start what can be had.

        Args:
            targets: Where the stack's servers answer, by job.
            database_url: The URL by which the exporter reads from PostgreSQL.
            say: Called with a line for each server, started or left out.
        """
        shutil.rmtree(self._directory, ignore_errors=True)
        try:
            programs = monitoring_programs(UNPACKED)
        except LocalStackError as error:
            say(_without(_PROMETHEUS, error))
            return
        if programs.exporter is not None:
            exporter = self._exporter(programs.exporter, database_url)
            if self._start(exporter, say):
                targets = {**targets, "postgres": Address.of(exporter.url)}
        self._start(self._prometheus(programs, targets), say)

    @property
    def url(self) -> str | None:
        """The base URL of Prometheus; ``None`` where there is none."""
        return self.servers[_PROMETHEUS].url if _PROMETHEUS in self.servers else None

    @property
    def alerts_url(self) -> str | None:
        """The page of the alerts; Debian's Prometheus has it at another path than the others."""
        if self.url is None:
            return None
        usual = f"{self.url}/alerts"
        return usual if answers(usual) else f"{self.url}/classic/alerts"

    def stop(self) -> None:
        """Stop what runs, Prometheus first."""
        for server in reversed(self.servers.values()):
            server.stop()

    def _start(self, server: ServerProcess, say: Callable[[str], None]) -> bool:
        """Start a server and say where; return whether it started."""
        self.servers[server.name] = server
        try:
            server.launch_and_wait()
        except (LocalStackError, OSError) as error:
            del self.servers[server.name]
            say(_without(server.name, error))
            return False
        say(f"{server.name} is ready on {server.url}")
        return True

    def _exporter(self, program: Path, database_url: str) -> ServerProcess:
        address = self._address(_EXPORTER)
        command = [str(program), f"--web.listen-address={address.host}:{address.port}"]
        settings = {"DATA_SOURCE_NAME": f"{database_url}?sslmode=disable"}
        return self._server(_EXPORTER, command, address, "/", settings)

    def _prometheus(
        self, programs: MonitoringPrograms, targets: Mapping[str, Address]
    ) -> ServerProcess:
        address = self._address(_PROMETHEUS)
        configuration = _configure(self._directory / "configuration", targets)
        command = [
            str(programs.prometheus),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address={address.host}:{address.port}",
        ]
        if programs.pages is not None:
            # An option of Debian's: elsewhere the pages are within the program.
            command.append(f"--web.local-assets={programs.pages}")
        return self._server(_PROMETHEUS, command, address, "/-/ready", {})

    def _address(self, name: str) -> Address:
        (port,) = free_ports(_STANDARD_PORTS[name] if self._standard_ports else None)
        return Address(LOOPBACK, port)

    def _server(
        self,
        name: str,
        command: list[str],
        address: Address,
        ready_path: str,
        settings: Mapping[str, str],
    ) -> ServerProcess:
        return ServerProcess(
            name,
            command,
            url=address.http_url,
            ready_path=ready_path,
            log=self._logs / f"{name}.log",
            env={**base_environment(), **settings},
            grace=_GRACE_SECONDS,
            on_start=self._on_start,
        )


def _configure(directory: Path, targets: Mapping[str, Address]) -> Path:
    """Copy the configuration and write the targets; return the file to start Prometheus with.

    Args:
        directory: Where to; must not exist.
        targets: Where each job's servers answer, by the name of its file of targets. A job
            without one scrapes nothing.
    """
    shutil.copytree(CONFIGURATION / "rules", directory / "rules")
    (directory / "targets").mkdir()
    for job, address in targets.items():
        groups = [{"targets": [f"{address.host}:{address.port}"]}]
        (directory / "targets" / f"{job}.yml").write_text(json.dumps(groups), encoding="utf-8")
    return Path(shutil.copy(CONFIGURATION / "prometheus.yml", directory))


def _without(name: str, error: Exception) -> str:
    first, *others = str(error).splitlines()
    # What a program printed begins on the second line and says most on its last.
    return f"going on without {name}: {' '.join([first, *others[-1:]])}"
