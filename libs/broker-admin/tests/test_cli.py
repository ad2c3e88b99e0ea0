"""The command ``nexus-topology`` without a broker: settings, misuse and rendering."""

import json
from pathlib import Path

import pytest

from nexus_broker_admin.cli import MAX_SCALE, main, read_settings
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import TIERS
from nexus_service.settings import SettingsError

COMPLETE = {
    "MANAGEMENT_URL": "http://root:s3cret@127.0.0.1:1",
    "BROKER_PASSWORD_PUBLISHER": "p1",
    "BROKER_PASSWORD_CUSTOMER_PROVISIONER": "p2",
    "BROKER_PASSWORD_USAGE_INGEST": "p3",
    "BROKER_PASSWORD_STRIPE_REPORTER": "p4",
    "BROKER_PASSWORD_OPERATOR": "p5",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the command complete settings, whatever the machine's own are."""
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.delenv("VHOST", raising=False)


def test_missing_settings_are_named_together() -> None:
    """One start of the command is enough to learn what it needs."""
    with pytest.raises(SettingsError) as caught:
        read_settings({"BROKER_PASSWORD_OPERATOR": "p5"})

    assert all(name in str(caught.value) for name in COMPLETE if name != "BROKER_PASSWORD_OPERATOR")
    assert "BROKER_PASSWORD_OPERATOR" not in str(caught.value)


def test_setting_is_read_from_a_file(tmp_path: Path) -> None:
    """A secret mounted as a file is read without its final newline."""
    secret = tmp_path / "secret"
    secret.write_text("from the file\n", encoding="utf-8")
    settings = read_settings(COMPLETE | {"BROKER_PASSWORD_OPERATOR_FILE": str(secret)})

    assert settings.passwords["operator"] == "from the file"
    assert settings.passwords["usage-ingest"] == "p3"
    assert settings.vhost == "metering"


def test_unreadable_secret_file_is_named(tmp_path: Path) -> None:
    """The error names the setting, so that its mount can be corrected."""
    with pytest.raises(SettingsError, match="BROKER_PASSWORD_OPERATOR_FILE: can't be read"):
        read_settings(COMPLETE | {"BROKER_PASSWORD_OPERATOR_FILE": str(tmp_path / "none")})


def test_settings_hide_their_secrets() -> None:
    """Settings may appear in tracebacks; passwords must not."""
    assert repr(read_settings(COMPLETE)) == "Settings(vhost='metering')"


def test_render_needs_neither_broker_nor_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints a definitions document in which no user has a password."""
    for name in COMPLETE:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VHOST", "other")

    assert main(["render", "--tier-scale", "0.01", "--broker-version", "3.10.8"]) == 0

    document = json.loads(capsys.readouterr().out)
    expected = metering_topology("other", 0.01, "3.10.8")
    assert document["vhosts"] == [{"name": "other"}]
    assert len(document["policies"]) == len(expected.policies)
    assert [user["password_hash"] for user in document["users"]] == [""] * len(expected.users)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["forget"],
        ["apply", "--tier-scale", "0"],
        ["apply", "--tier-scale", "nan"],
        ["render", "--tier-scale", "1e300"],
        ["check", "--broker-version", "4.0.5"],
        ["drain"],
        ["drain", "no-such-tier"],
        ["render", "--broker-version", "newest"],
        ["render", "--broker-version", "1" * 5000],
        ["render", "--broker-version", "\u0663.1"],
    ],
)
def test_misuse_exits_with_2(arguments: list[str]) -> None:
    """Invalid arguments are refused before anything is changed."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2


def test_missing_settings_exit_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing settings are misuse, not drift."""
    monkeypatch.delenv("BROKER_PASSWORD_USAGE_INGEST")

    assert main(["check"]) == 2

    assert capsys.readouterr().err == (
        "nexus-topology: set BROKER_PASSWORD_USAGE_INGEST (or the same with _FILE)\n"
    )


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:15672",
        "http://127.0.0.1:1",
        "http://root:s3cret@h:port",
        "s3cret",
        "http://root:s3cret@h..x:1",
        f"http://root:s3cret@{'h' * 64}:1",
        "http://ro%3Aot:s3cret@127.0.0.1:1",
        "ftp://root:s3cret@127.0.0.1:1",
        "http://root:s3cret@:1",
    ],
)
def test_invalid_address_exits_with_2_and_is_not_shown(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message shows the expected form, not the value, which holds a password."""
    monkeypatch.setenv("MANAGEMENT_URL", address)

    assert main(["check"]) == 2

    assert capsys.readouterr().err == (
        "nexus-topology: MANAGEMENT_URL must be of the form http://user:password@host:port\n"
    )


@pytest.mark.enable_socket
def test_drain_needs_no_password_of_a_broker_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator who frees a tier need not know the passwords of services."""
    for name in COMPLETE:
        if name != "MANAGEMENT_URL":
            monkeypatch.delenv(name)

    assert main(["drain", TIERS[-1].name]) == 1

    assert "no answer from the management API" in capsys.readouterr().err


@pytest.mark.enable_socket
@pytest.mark.parametrize("command", ["apply", "check", f"drain {TIERS[-1].name}"])
def test_unreachable_broker_exits_with_1_and_one_line(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the address and what to check, without the password."""
    assert main(command.split()) == 1

    shown = capsys.readouterr().err
    assert shown.startswith(
        "nexus-topology: no answer from the management API at http://127.0.0.1:1"
    )
    assert shown.count("\n") == 1
    assert "s3cret" not in shown


@pytest.mark.parametrize("command", ["apply", "check", "render", "drain"])
def test_help_names_settings_exit_codes_and_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command's help is complete."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for words in ("MANAGEMENT_URL", "BROKER_PASSWORD_<USER>", "exit codes:", f"topology {command}"):
        assert words in shown


def test_argument_is_shown_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A pasted command may hold characters that recolour or reorder the line."""
    with pytest.raises(SystemExit):
        main(["apply", "a\u202eb\x9b31m"])

    assert r"unrecognized arguments: a\u202eb\x9b31m" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["0", "-1", "many", "inf", str(MAX_SCALE + 1)])
def test_invalid_scale_is_refused(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 2 and states the valid range."""
    with pytest.raises(SystemExit) as ended:
        main(["check", f"--tier-scale={scale}"])

    assert ended.value.code == 2
    assert f"must be a number above 0, {MAX_SCALE} at most" in capsys.readouterr().err
