"""Where the tests' broker and database come from."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from local_stack.broker_programs import (
    BrokerUnavailableError,
    broker_programs,
    fetch_programs,
    installed_programs,
)
from local_stack.newer_broker import newer_programs
from local_stack.postgres import PostgresServer
from local_stack.provision import (
    AMQP_URL,
    DATABASE_URL,
    MANAGEMENT_URL,
    RABBITMQ,
    GivenBroker,
    NotOursToStopError,
    provide_broker,
    provide_postgres,
)
from local_stack.rabbitmq import RabbitNode
from local_stack.sql import run_sql
from local_stack.urls import Login


def test_a_given_database_is_used_and_left_running(
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A given server is used first, is named in the output, and is not stopped."""
    monkeypatch.setenv(DATABASE_URL, postgres.superuser_url)

    with provide_postgres(tmp_path / "unused") as given, pytest.raises(NotOursToStopError):
        given.kill()

    assert run_sql(postgres.superuser_url, "SELECT 1") == "1\n"
    assert f"PostgreSQL {postgres.version} from {DATABASE_URL}" in capsys.readouterr().err
    assert not (tmp_path / "unused").exists()


def test_a_given_broker_keeps_its_address_and_administrator() -> None:
    """The administrator comes from the management URL, the AMQP address from the other."""
    broker = GivenBroker("amqp://10.0.0.1:5671/", "http://root:secret@10.0.0.1:15671/")

    assert broker.admin == Login("root", "secret")
    assert broker.management_url == "http://10.0.0.1:15671"
    assert broker.amqp_url("a", "b", "v") == "amqp://a:b@10.0.0.1:5671/v"
    assert {AMQP_URL, MANAGEMENT_URL} == {"NEXUS_TEST_AMQP_URL", "NEXUS_TEST_MANAGEMENT_URL"}


def test_without_rabbitmq_and_apt_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the command."""
    monkeypatch.setattr("local_stack.broker_programs.shutil.which", lambda *_, **__: None)

    with pytest.raises(BrokerUnavailableError, match=r"apt-get install .* rabbitmq-server"):
        broker_programs(tmp_path)


def test_two_who_lack_rabbitmq_at_once_fetch_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits; it does not replace the programs that the first one runs by then."""
    both = Barrier(2)
    fetched = []

    class Packages:
        def __init__(self, *_: Path) -> None:
            pass

        def unpack(self, root: Path, package: str, *, kept: tuple[str, ...]) -> None:
            with suppress(BrokenBarrierError):
                both.wait(timeout=1)
            fetched.append((package, kept))
            for program in ("rabbitmq/lib/rabbitmq_server-3.10.8/sbin/rabbitmq", "erlang/bin/epmd"):
                for part in ("", "-server", "-env"):
                    path = root / "usr/lib" / f"{program}{part}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()

    monkeypatch.setattr("local_stack.broker_programs.installed_programs", lambda: None)
    monkeypatch.setattr("local_stack.broker_programs.PrivateApt", Packages)

    with ThreadPoolExecutor() as pool:
        found = set(pool.map(broker_programs, [tmp_path / "programs"] * 2))

    assert len(fetched) == 1
    assert {programs.major for programs in found} == {3}


def test_an_installed_rabbitmq_is_run_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian links its scripts from another folder, from which RabbitMQ's parts are not found."""
    home = tmp_path / "lib/rabbitmq_server-3.10.8/sbin"
    links, erlang = tmp_path / "bin", tmp_path / "erlang"
    for folder in (home, links, erlang):
        folder.mkdir(parents=True)
    for name in ("rabbitmq-server", "rabbitmq-env"):
        (home / name).touch()
        (links / name).symlink_to(home / name)
    for path in (links / "rabbitmq-script-wrapper", erlang / "erl", erlang / "epmd"):
        path.touch()
    installed = {"rabbitmq-server": links / "rabbitmq-script-wrapper", "erl": erlang / "erl"}
    monkeypatch.setattr("shutil.which", lambda name, **_: installed[name])

    found = installed_programs()

    assert found is not None
    assert found.scripts == home


def test_a_version_of_rabbitmq_that_is_not_offered_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error never runs the tests on whatever broker there is."""
    monkeypatch.setenv(RABBITMQ, "4.1")

    with pytest.raises(BrokerUnavailableError, match=f"{RABBITMQ} can be 4"):
        provide_broker(tmp_path)


def test_a_given_broker_of_another_version_than_asked_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests meant for RabbitMQ 4 never pass on an older one."""
    monkeypatch.setenv(RABBITMQ, "4")
    monkeypatch.setenv(AMQP_URL, "amqp://a:b@127.0.0.1:5672/")
    monkeypatch.setenv(MANAGEMENT_URL, "http://a:b@127.0.0.1:15672/")
    monkeypatch.setattr(GivenBroker, "version", "3.13.7")

    with pytest.raises(BrokerUnavailableError, match=r"is RabbitMQ 3\.13\.7"):
        provide_broker(tmp_path)


@pytest.mark.long
def test_rabbitmq_4_runs_beside_the_machines_own(tmp_path: Path) -> None:
    """Debian 13's packages run on an older Debian, with nothing installed."""
    programs = newer_programs(tmp_path / "programs")

    with RabbitNode.start(tmp_path / "node", programs=programs) as node:
        assert node.version.startswith("4.")
        assert "OpenSSL" in node.ctl("eval", "crypto:info_lib().")


@pytest.mark.long
def test_a_machine_without_rabbitmq_fetches_its_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without root and from a relative path, as the checkout gives it."""
    monkeypatch.chdir(tmp_path)
    installed = tmp_path / "status"
    installed.write_text(
        "\n".join(
            entry + "\n"
            for entry in Path("/var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n")
            if not entry.startswith(("Package: rabbitmq", "Package: erlang", "Package: libsctp"))
        ),
        encoding="utf-8",
    )

    programs = fetch_programs(Path("programs"), installed=installed)

    with RabbitNode.start(tmp_path / "node", programs=programs) as node:
        assert "OpenSSL" in node.ctl("eval", "crypto:info_lib().")
