"""The command line of a service: what it says and how it ends."""

import argparse
from collections.abc import Mapping
from datetime import timedelta

import pytest

from nexus_database.settings import DatabaseSettings
from nexus_messaging.settings import BrokerSettings
from nexus_service.checking import Check, Checks
from nexus_service.command import Command, Service, duration, moment, positive, run, utf_8
from nexus_service.input_files import UnreadableFileError
from nexus_service.lifecycle import StartError, StoppedError
from nexus_service.settings import ServiceSettings


async def fine() -> str | None:
    """Find nothing wrong."""
    return None


async def away() -> str | None:
    """Find the broker away."""
    return "not reachable"


async def interrupted(_settings: DatabaseSettings, _parsed: argparse.Namespace) -> int:
    """Stand for a command that somebody ends with Ctrl-C."""
    raise KeyboardInterrupt


async def asked(_settings: DatabaseSettings, _parsed: argparse.Namespace) -> int:
    """Stand for a command that finds what it looks for."""
    return 0


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
        checks=(
            Checks("broker", BrokerSettings, lambda _: checks or {"broker": fine}),
            Checks("database", DatabaseSettings, lambda _: {"database": fine}),
            Checks("topology", BrokerSettings, lambda _: {}, remark=lambda _: "not compared"),
        ),
        migrate=migrate,
        faults=(PermissionError,),
        commands=(
            Command("interrupt", "end early", DatabaseSettings, interrupted),
            Command("ask", "ask", DatabaseSettings, asked, examples=("{}", "{} --json | jq .late")),
        ),
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
    assert "exit codes:" in told


@pytest.mark.parametrize("command", ["serve", "check", "migrate", "interrupt", "ask"])
def test_help_of_every_command_has_an_example_and_the_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person would type, ready to be copied."""
    with pytest.raises(SystemExit) as ended:
        run(service(), [command, "--help"])

    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"  usage-ingest {command}\n" in told or f" usage-ingest {command}\n" in told
    assert "2    wrong usage or settings" in told


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["serve", "--nonsense"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And says what would be right."""
    with pytest.raises(SystemExit) as ended:
        run(service(), arguments)

    assert ended.value.code == 2
    assert "usage: usage-ingest" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "migrate", "ask"])
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
    """All of them are told, not just the first; what was not looked at fails nothing."""
    assert run(service(checks={"broker": away, "clock": fine}), ["check"]) == 1
    assert capsys.readouterr().out == (
        "settings: ok\nbroker: not reachable\nclock: ok\ndatabase: ok\ntopology: not compared\n"
    )
    assert run(service(), ["check"]) == 0


def test_check_names_wrong_settings_and_looks_at_everything_that_needs_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped port does not hide that the broker is away; exit code 2, for the settings."""
    monkeypatch.setenv("HTTP_PORT", "s3cret")
    monkeypatch.delenv("DATABASE_URL")

    assert run(service(checks={"broker": away}), ["check"]) == 2

    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == [
        "settings",
        "settings",
        "broker",
        "database",
        "topology",
    ]
    assert "settings: DATABASE_URL: not set (nor DATABASE_URL_FILE)" in told
    assert "broker: not reachable" in told
    assert "database: not asked, for want of its settings" in told
    assert "s3cret" not in "".join(told)


def test_ctrl_c_ends_a_command_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code that shells give it."""
    assert run(service(), ["interrupt"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("written", ["0", "-1", "many", "inf", "nan"])
def test_a_rate_or_an_age_that_is_none_is_refused(written: str) -> None:
    """And named, so that the mistake can be seen."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{written}' is no number above 0"):
        positive(written)


def test_migrate_tells_the_revision(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is what a deploy's log should show."""
    assert run(service(), ["migrate"]) == 0
    assert capsys.readouterr().out == "usage-ingest: database at revision 0001\n"


@pytest.mark.parametrize("written", ["-1", "many", "inf", "nan", "1e300", "36526"])
def test_a_duration_that_is_none_or_beyond_every_record_is_refused(written: str) -> None:
    """Counted back from now it has no date."""
    with pytest.raises(argparse.ArgumentTypeError, match="is no number from 0 to 36525"):
        duration(timedelta(days=1))(written)


def test_a_duration_is_read_in_its_unit() -> None:
    """Whole or not."""
    assert duration(timedelta(seconds=1))("1.5") == timedelta(seconds=1.5)
    assert duration(timedelta(days=1))("0") == timedelta(0)


@pytest.mark.parametrize(
    "written", ["now", "2026-03-01", "2026-03-01T12:00", "0001-01-01T00:00+14:00", "9999-12-31T00Z"]
)
def test_a_time_that_is_none_or_without_zone_or_out_of_range_is_refused(written: str) -> None:
    """Before any work is done with it."""
    with pytest.raises(argparse.ArgumentTypeError, match="is wanted"):
        moment(written)


def test_a_file_that_cannot_be_read_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """As wrong usage does; what would harm a terminal in its name is escaped."""
    error = UnreadableFileError("a\u202eb can't be read")

    assert run(service(ends_by=error), ["serve"]) == 2
    assert capsys.readouterr().err == "usage-ingest: a\\u202eb can't be read\n"


def test_what_is_typed_is_repeated_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """It may have been pasted."""
    with pytest.raises(SystemExit):
        run(service(), ["ask", "--\x9b2J\u202e"])

    assert "--\\x9b2J\\u202e" in capsys.readouterr().err


def test_an_argument_of_no_utf_8_is_refused() -> None:
    """No database takes it."""
    assert utf_8("Zoë") == "Zoë"
    with pytest.raises(argparse.ArgumentTypeError, match="is not in UTF-8"):
        utf_8("\udcff@x.com")
