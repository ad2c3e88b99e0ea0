"""Prometheus and the exporter: started if available, left out if not."""

import dataclasses
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from local_stack.databases import create_monitor
from local_stack.loopback import answers, fetch
from local_stack.monitoring import UNPACKED, Monitoring
from local_stack.monitoring_programs import MonitoringPrograms, monitoring_programs
from local_stack.ports import LOOPBACK, free_ports
from local_stack.postgres import PostgresServer
from local_stack.sql import SqlFailedError, run_sql
from local_stack.urls import Address

TARGETS = {"rabbitmq": Address(LOOPBACK, 1)}
NOBODY = "postgresql://nobody:nothing@127.0.0.1:1/postgres"


@pytest.fixture
def standard_ports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return ports that are the standard ones here; a stack of other tests may have the real."""
    ports = free_ports(None, None)
    standard = dict(zip(("prometheus", "postgres-exporter"), ports, strict=True))
    monkeypatch.setattr("local_stack.monitoring._STANDARD_PORTS", standard)
    return ports


@pytest.fixture
def monitoring(tmp_path: Path, standard_ports: list[int]) -> Iterator[Monitoring]:  # noqa: ARG001
    """The monitoring of a stack, stopped at the end."""
    made = Monitoring(tmp_path, lambda: None, standard_ports=True)
    yield made
    made.stop()


Offer = Callable[[MonitoringPrograms], None]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Return a function that says which programs this machine has."""

    def has(programs: MonitoringPrograms) -> None:
        monkeypatch.setattr("local_stack.monitoring.monitoring_programs", lambda _: programs)

    return has


def test_used_ports_are_not_taken(monitoring: Monitoring, standard_ports: list[int]) -> None:
    """The machine's own Prometheus and exporter keep their ports; ours use others."""
    first, second = standard_ports
    with closing(taken(first)), closing(taken(second)):
        monitoring.start(TARGETS, NOBODY, lambda _: None)

    ports = {name: Address.of(server.url).port for name, server in monitoring.servers.items()}
    assert ports.keys() == {"prometheus", "postgres-exporter"}
    assert not {first, second} & set(ports.values())
    assert monitoring.alerts_url is not None
    assert answers(monitoring.alerts_url)


def test_without_prometheus_the_stack_starts_and_says_so_in_one_line(
    monitoring: Monitoring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stack needs no Prometheus."""
    monkeypatch.setattr("local_stack.monitoring_programs.shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("local_stack.monitoring.UNPACKED", tmp_path / "nothing")
    said: list[str] = []

    monitoring.start(TARGETS, NOBODY, said.append)

    [line] = said
    assert line.startswith("going on without prometheus: Prometheus is not installed")
    assert "apt-get install" in line
    assert "\n" not in line
    assert monitoring.servers == {}
    assert monitoring.url is None
    assert monitoring.alerts_url is None


@pytest.mark.parametrize("program", ["/bin/false", "/etc/hostname"])
def test_a_prometheus_that_does_not_start_is_left_out(
    monitoring: Monitoring, offer: Offer, program: str
) -> None:
    """One that ends at once, and one that is no program: one line, and the stack goes on."""
    offer(MonitoringPrograms(Path(program), Path(program), None, None))
    said: list[str] = []

    monitoring.start(TARGETS, NOBODY, said.append)

    [line] = said
    assert line.startswith("going on without prometheus: ")
    assert "\n" not in line
    assert monitoring.servers == {}


def test_without_an_exporter_the_rest_is_scraped(monitoring: Monitoring, offer: Offer) -> None:
    """Only PostgreSQL's metrics are missing."""
    offer(dataclasses.replace(monitoring_programs(UNPACKED), exporter=None))

    monitoring.start(TARGETS, NOBODY, lambda _: None)

    assert jobs(monitoring) == {"rabbitmq", "rabbitmq-queues"}


def test_prometheus_begins_anew(monitoring: Monitoring, tmp_path: Path) -> None:
    """Files of a crashed stack neither stop the next one nor show up in it."""
    (tmp_path / "monitoring" / "configuration" / "rules").mkdir(parents=True)
    (tmp_path / "monitoring" / "data").mkdir()
    (tmp_path / "monitoring" / "data" / "lock").write_text("4711", encoding="utf-8")

    monitoring.start(TARGETS, NOBODY, lambda _: None)

    loaded = json.loads(fetch(f"{monitoring.url}/api/v1/rules"))["data"]["groups"]
    assert "platform" in {group["name"] for group in loaded}


def test_the_exporter_sees_statistics_and_no_table(postgres: PostgresServer) -> None:
    """Its password gives access to statistics and to no data."""
    monitor = create_monitor(postgres.superuser_url)
    run_sql(postgres.superuser_url, "CREATE TABLE secrets (content text)")
    url = postgres.url("postgres", monitor.user, monitor.password)

    assert run_sql(url, "SELECT count(*) > 0 FROM pg_stat_activity WHERE query <> ''") == "t\n"
    with pytest.raises(SqlFailedError, match="permission denied"):
        run_sql(url, "SELECT * FROM secrets")
    roles = "SELECT string_agg(roleid::regrole::text, ',') FROM pg_auth_members"
    granted = run_sql(url, f"{roles} WHERE member = 'postgres_exporter'::regrole")
    assert granted == "pg_monitor\n"


def test_the_exporter_has_postgresqls_metrics(
    monitoring: Monitoring, postgres: PostgresServer
) -> None:
    """With its own role: availability, connections, sizes."""
    monitor = create_monitor(postgres.superuser_url)
    url = postgres.url("postgres", monitor.user, monitor.password)

    monitoring.start(TARGETS, url, lambda _: None)

    metrics = fetch(f"{monitoring.servers['postgres-exporter'].url}/metrics").decode()
    assert re.search(r"^pg_up 1$", metrics, flags=re.MULTILINE)
    for metric in ("pg_stat_activity_count", "pg_database_size_bytes", "pg_locks_count"):
        assert f"\n{metric}{{" in metrics
    assert monitor.password not in metrics
    assert monitor.password not in (monitoring.servers["postgres-exporter"].log).read_text()


@pytest.mark.long
def test_a_machine_without_prometheus_fetches_debians(
    monitoring: Monitoring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without root, from a relative path, and with its web pages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("local_stack.monitoring.UNPACKED", Path("programs"))

    monitoring.start(TARGETS, NOBODY, lambda _: None)

    page = fetch(f"{monitoring.url}/graph").decode()
    needed = re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css)[^"]*)"', page)
    assert [path for path in needed if not answers(f"{monitoring.url}{path}")] == []
    assert len(needed) > 3


def jobs(monitoring: Monitoring) -> set[str]:
    """Wait until Prometheus has targets; return their jobs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = json.loads(fetch(f"{monitoring.url}/api/v1/targets"))["data"]["activeTargets"]
        if found:
            return {each["labels"]["job"] for each in found}
        time.sleep(0.2)
    return set()


def taken(port: int) -> socket.socket:
    """Listen on a port unless another process does; it may have connections in TIME_WAIT."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.connect_ex((LOOPBACK, port)) != 0:
        listener.bind((LOOPBACK, port))
        listener.listen()
    return listener
