"""The command line of a service: what it says and how it ends."""

from collections.abc import Mapping

import pytest

from nexus_messaging.command import Check, Service, run
from nexus_messaging.lifecycle import StartError, StoppedError
from nexus_messaging.settings import ServiceSettings


async def fine() -> str | None:
    """Find nothing wrong."""
    return None


async def away() -> str | None:
    """Find the broker away."""
    return "not reachable"


def service(
    *, ends_by: Exception | None = None, checks: Mapping[str, Check] | None = None
) -> Service[ServiceSettings]:
    """Return a service whose work ends at once, by an error if there is one."""

    async def serve(_settings: ServiceSettings) -> None:
        if ends_by is not None:
            raise ends_by

    async def migrate(_url: str) -> str:
        return "0001"

    return Service(
        name="usage-ingest",
        purpose="Records tool runs.",
        settings=ServiceSettings,
        serve=serve,
        checks=lambda _settings: checks or {"broker": fine},
        migrate=migrate,
        faults=(PermissionError,),
    )


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the command complete settings, whatever the machine's own are."""
    for field in ServiceSettings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
        monkeypatch.delenv(f"{field.upper()}_FILE", raising=False)
    monkeypatch.setenv("AMQP_URL", "amqp://u:s3cret@h/v")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:s3cret@h/d")


def test_help_names_the_commands_and_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no settings and tells which there are."""
    with pytest.raises(SystemExit) as ended:
        run(service(), ["--help"])

    told = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("serve", "check", "migrate", "AMQP_URL", "SHUTDOWN_GRACE_SECONDS", "NAME_FILE"):
        assert word in told


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["serve", "--nonsense"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And says what would be right."""
    with pytest.raises(SystemExit) as ended:
        run(service(), arguments)

    assert ended.value.code == 2
    assert "usage: usage-ingest" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "check", "migrate"])
def test_wrong_settings_end_with_2_and_are_named(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, without a traceback and without a value."""
    monkeypatch.setenv("HTTP_PORT", "s3cret")
    monkeypatch.delenv("DATABASE_URL")

    assert run(service(), [command]) == 2

    told = capsys.readouterr().err
    assert told.startswith("usage-ingest: settings: ")
    assert "DATABASE_URL: not set" in told
    assert "s3cret" not in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "check"])
def test_traces_that_could_go_nowhere_end_with_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As other wrong settings do, before anything is begun."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "s3cret")

    assert run(service(), [command]) == 2

    told = capsys.readouterr().err
    assert told.startswith("usage-ingest: settings: OTEL_TRACES_EXPORTER: ")
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("ends_by", "code", "told"),
    [
        (None, 0, ""),
        (StoppedError(), 0, ""),
        (StartError("HTTP_PORT 80: choose another"), 1, "usage-ingest: HTTP_PORT 80: choose"),
        (PermissionError("ask the owner"), 1, "usage-ingest: ask the owner"),
    ],
)
def test_serving_ends_with_a_code_and_a_word(
    ends_by: Exception | None, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 when told to stop, however early; 1 with what to do about it when it can't start."""
    assert run(service(ends_by=ends_by), ["serve"]) == code
    assert capsys.readouterr().err.startswith(told)


def test_check_tells_each_finding_and_ends_with_1_if_any_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of them are told, not just the first."""
    assert run(service(checks={"broker": away, "database": fine}), ["check"]) == 1
    assert capsys.readouterr().out == "broker: not reachable\ndatabase: ok\n"
    assert run(service(), ["check"]) == 0


def test_migrate_tells_the_revision(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is what a deploy's log should show."""
    assert run(service(), ["migrate"]) == 0
    assert capsys.readouterr().out == "usage-ingest: database at revision 0001\n"
