"""The command line of a service: output and exit codes."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from nexus_database.settings import DatabaseSettings
from nexus_messaging.settings import BrokerSettings
from nexus_service.checking import Check, Checks
from nexus_service.command import Command, Server, Service, duration, moment, positive, run, utf_8
from nexus_service.console import Tone
from nexus_service.errors import StartError, StoppedError
from nexus_service.input_files import UnreadableFileError
from nexus_service.key_command import MAKE_API_KEY
from nexus_service.settings import ProcessSettings, ServiceSettings


async def healthy() -> str | None:
    """Return no fault."""
    return None


async def unreachable() -> str | None:
    """Return the fault of an unreachable broker."""
    return "not reachable"


async def interrupted(_settings: DatabaseSettings, _parsed: argparse.Namespace) -> int:
    """Act as a command that Ctrl-C interrupts."""
    raise KeyboardInterrupt


async def ask(_settings: DatabaseSettings, _parsed: argparse.Namespace) -> int:
    """Act as a command that succeeds."""
    return 0


class DoorSettings(BrokerSettings, ProcessSettings):
    """The settings of a process without a database."""


async def open_door(settings: DoorSettings) -> None:
    """Act as a process that cannot start."""
    raise StartError(f"port {settings.http_port} is taken")


DOOR_CHECK = Checks("broker", BrokerSettings, lambda _: {"broker": unreachable})


def service(
    *, ends_by: Exception | None = None, checks: Mapping[str, Check] | None = None
) -> Service[ServiceSettings]:
    """Return a service that exits immediately, with the error ``ends_by`` if given."""

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
        checks=(
            Checks("broker", BrokerSettings, lambda _: checks or {"broker": healthy}),
            Checks("database", DatabaseSettings, lambda _: {"database": healthy}),
            Checks("topology", BrokerSettings, lambda _: {}, remark=lambda _: "not compared"),
        ),
        migrate=migrate,
        faults=(PermissionError,),
        commands=(
            Command("interrupt", "end early", DatabaseSettings, interrupted),
            Command("ask", "ask", DatabaseSettings, ask, examples=("{}", "{} --json | jq .late")),
        ),
        servers=(Server("door", "serve by HTTP", DoorSettings, open_door, (DOOR_CHECK,)),),
    )


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the command complete settings, independent of the machine's environment."""
    for field in ServiceSettings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
        monkeypatch.delenv(f"{field.upper()}_FILE", raising=False)
    monkeypatch.setenv("AMQP_URL", "amqp://u:s3cret@h/v")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:s3cret@h/d")


def test_help_lists_commands_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no settings and lists them."""
    with pytest.raises(SystemExit) as exited:
        run(service(), ["--help"])

    output = capsys.readouterr().out
    assert exited.value.code == 0
    for word in ("serve", "check", "migrate", "AMQP_URL", "SHUTDOWN_GRACE_SECONDS", "NAME_FILE"):
        assert word in output
    assert "exit codes:" in output


@pytest.mark.parametrize("command", ["serve", "check", "migrate", "interrupt", "ask"])
def test_command_help_has_example_and_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator can copy the example."""
    with pytest.raises(SystemExit) as exited:
        run(service(), [command, "--help"])

    output = capsys.readouterr().out
    assert exited.value.code == 0
    assert f"  usage-ingest {command}\n" in output or f" usage-ingest {command}\n" in output
    assert "2    wrong usage or settings" in output


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["serve", "--nonsense"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The error shows the correct usage."""
    with pytest.raises(SystemExit) as exited:
        run(service(), arguments)

    assert exited.value.code == 2
    assert "usage: usage-ingest" in capsys.readouterr().err


def test_key_for_a_type_that_no_event_has_is_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    """Its owner's events would all be refused; the answer names the events that there are."""
    made = replace(service(), commands=(MAKE_API_KEY,))
    for known in ("user.created", "user.created.v2", "*"):
        assert run(made, ["make-api-key", "hub", "--type", known]) == 0

    with pytest.raises(SystemExit) as exited:
        run(made, ["make-api-key", "hub", "--type", "user.creatd"])

    assert exited.value.code == 2
    assert "tool.executed" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "migrate", "ask"])
def test_invalid_settings_are_named_and_exit_with_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is one line, without a traceback and without a value."""
    monkeypatch.setenv("HTTP_PORT", "s3cret")
    monkeypatch.delenv("DATABASE_URL")

    assert run(service(), [command]) == 2

    output = capsys.readouterr().err
    assert output.startswith("usage-ingest: settings: ")
    assert "DATABASE_URL: not set" in output
    assert "s3cret" not in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "check"])
def test_unknown_trace_exporter_exits_with_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Like other invalid settings, before any work starts."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "s3cret")

    assert run(service(), [command]) == 2

    output = capsys.readouterr().err
    assert output.startswith("usage-ingest: settings: OTEL_TRACES_EXPORTER: ")
    assert "s3cret" not in output


@pytest.mark.parametrize(
    ("ends_by", "code", "output"),
    [
        (None, 0, ""),
        (StoppedError(), 0, ""),
        (StartError("HTTP_PORT 80: choose another"), 1, "usage-ingest: HTTP_PORT 80: choose"),
        (PermissionError("ask the owner"), 1, "usage-ingest: ask the owner"),
    ],
)
def test_serve_exits_with_code_and_error_text(
    ends_by: Exception | None, code: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stop exits with 0 at any time; a failed start exits with 1 and says what to do."""
    assert run(service(ends_by=ends_by), ["serve"]) == code
    assert capsys.readouterr().err.startswith(output)


def test_check_shows_a_note_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    """What the service works in spite of is shown, and is no fault."""
    noting = Checks("clock", BrokerSettings, lambda _: {"clock": unreachable}, tone=Tone.NOTE)

    assert run(replace(service(), checks=(noting,)), ["check"]) == 0
    assert capsys.readouterr().out == "settings: ok\nclock: not reachable\n"


def test_check_shows_all_findings_and_exits_with_1_on_a_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It shows all faults, not only the first; a skipped check is not a fault."""
    assert run(service(checks={"broker": unreachable, "clock": healthy}), ["check"]) == 1
    assert capsys.readouterr().out == (
        "settings: ok\nbroker: not reachable\nclock: ok\ndatabase: ok\ntopology: not compared\n"
    )
    assert run(service(), ["check"]) == 0


def test_check_with_invalid_settings_runs_all_other_checks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An invalid port does not hide an unreachable broker; invalid settings exit with 2."""
    monkeypatch.setenv("HTTP_PORT", "s3cret")
    monkeypatch.delenv("DATABASE_URL")

    assert run(service(checks={"broker": unreachable}), ["check"]) == 2

    output = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in output] == [
        "settings",
        "settings",
        "broker",
        "database",
        "topology",
    ]
    assert "settings: DATABASE_URL: not set (nor DATABASE_URL_FILE)" in output
    assert "broker: not reachable" in output
    assert "database: not checked: its settings are missing or invalid" in output
    assert "s3cret" not in "".join(output)


def test_ctrl_c_exits_with_130_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of a shell."""
    assert run(service(), ["interrupt"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("written", ["0", "-1", "many", "inf", "nan"])
def test_number_not_above_0_is_refused(written: str) -> None:
    """The error quotes the argument."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{written}' is no number above 0"):
        positive(written)


def test_migrate_shows_the_revision(capsys: pytest.CaptureFixture[str]) -> None:
    """A deployment's log shows it."""
    assert run(service(), ["migrate"]) == 0
    assert capsys.readouterr().out == "usage-ingest: database at revision 0001\n"


@pytest.mark.parametrize("written", ["-1", "many", "inf", "nan", "1e300", "36526"])
def test_invalid_or_too_long_duration_is_refused(written: str) -> None:
    """Subtracted from now it would have no valid date."""
    with pytest.raises(argparse.ArgumentTypeError, match="is no number from 0 to 36525"):
        duration(timedelta(days=1))(written)


def test_duration_is_read_in_its_unit() -> None:
    """Fractions are allowed."""
    assert duration(timedelta(seconds=1))("1.5") == timedelta(seconds=1.5)
    assert duration(timedelta(days=1))("0") == timedelta(0)


@pytest.mark.parametrize(
    "written", ["now", "2026-03-01", "2026-03-01T12:00", "0001-01-01T00:00+14:00", "9999-12-31T00Z"]
)
def test_invalid_time_is_refused(written: str) -> None:
    """No time, no offset, or out of range."""
    with pytest.raises(argparse.ArgumentTypeError, match="is wanted"):
        moment(written)


def test_unreadable_file_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in its name are escaped."""
    error = UnreadableFileError("a\u202eb can't be read")

    assert run(service(ends_by=error), ["serve"]) == 2
    assert capsys.readouterr().err == "usage-ingest: a\\u202eb can't be read\n"


def test_error_escapes_control_characters_of_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments may be pasted text."""
    with pytest.raises(SystemExit):
        run(service(), ["ask", "--\x9b2J\u202e"])

    assert "--\\x9b2J\\u202e" in capsys.readouterr().err


def test_argument_not_in_utf_8_is_refused() -> None:
    """No database can store it."""
    assert utf_8("Zoë") == "Zoë"
    with pytest.raises(argparse.ArgumentTypeError, match="is not in UTF-8"):
        utf_8("\udcff@x.com")


def test_a_further_server_needs_its_own_settings_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is started by its own command, with its own checks."""
    monkeypatch.delenv("DATABASE_URL")

    assert run(service(), ["door"]) == 1
    assert "port 8080 is taken" in capsys.readouterr().err
    assert run(service(), ["door", "--check"]) == 1
    assert "not reachable" in capsys.readouterr().out
    monkeypatch.delenv("AMQP_URL")
    assert run(service(), ["door"]) == 2
