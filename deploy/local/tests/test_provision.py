"""Where the tests' broker and database come from."""

from pathlib import Path

import pytest

from local_stack.broker_programs import BrokerUnavailableError, broker_programs
from local_stack.postgres import PostgresServer
from local_stack.provision import (
    AMQP_URL,
    DATABASE_URL,
    MANAGEMENT_URL,
    GivenBroker,
    NotOursToStopError,
    provide_postgres,
)
from local_stack.sql import run_sql
from local_stack.urls import Login


def test_a_given_database_is_used_and_left_running(
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A server somebody named comes first, is named in the output, and is not stopped."""
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


def test_a_machine_without_rabbitmq_or_apt_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is guessed and nothing hangs: one text, with the command."""
    monkeypatch.setattr("local_stack.broker_programs.shutil.which", lambda *_, **__: None)

    with pytest.raises(BrokerUnavailableError, match=r"apt-get install .* rabbitmq-server"):
        broker_programs(tmp_path)
