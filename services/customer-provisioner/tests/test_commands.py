"""The parts of the command line that need no database and no broker."""

from pathlib import Path

import pytest

from customer_provisioner.command_line import SERVICE
from nexus_service.command import run


@pytest.mark.parametrize("rate", ["0", "-1", "many", "inf", "nan"])
def test_an_invalid_rate_is_refused(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, before anything is read; the message says what is valid."""
    with pytest.raises(SystemExit) as ending:
        run(SERVICE, ["backfill", f"--throttle={rate}"])

    assert ending.value.code == 2
    assert "is no number above 0" in capsys.readouterr().err


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set addresses of a broker and a database, to which no test here connects."""
    monkeypatch.setenv("AMQP_URL", "amqp://u:s3cret@127.0.0.1:1/v")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:1/d")


LISTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "holds no user"),
    "a header alone": (b"user_id,email,name\n", "holds no user"),
    "no header": (b"1,s3cret@example.com\n", "names no column user_id"),
    "UTF-16": ("user_id,email\n1,s3cret".encode("utf-16"), "not in UTF-8"),
    "Latin-1": ("user_id,email,name\n1,s3cret,Zoë".encode("latin-1"), "not in UTF-8"),
    "binary": (b"\x00\x01\x02\n", "names no column user_id"),
    "a long line": (b"s3cret" * 100_000, ""),
    "half an array": (b'[{"user_id": "s3cret"', "is not JSON"),
}


@pytest.mark.parametrize("execute", [[], ["--execute"]], ids=["dry", "execute"])
@pytest.mark.parametrize("content", LISTS)
@pytest.mark.usefixtures("settings")
def test_an_unreadable_list_ends_with_2_and_is_not_shown(
    content: str, execute: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, no traceback, and no connection to broker or database."""
    written, fault = LISTS[content]
    file = tmp_path / "users.csv"
    file.write_bytes(written)

    assert run(SERVICE, ["backfill", str(file), *execute]) == 2

    shown = capsys.readouterr()
    assert fault in shown.err
    assert shown.err.count("\n") == 1
    assert "s3cret" not in shown.out + shown.err


@pytest.mark.usefixtures("settings")
def test_a_missing_list_ends_with_2_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped name, and a folder."""
    for name, cause in (("nowhere.csv", "No such file"), (".", "Is a directory")):
        assert run(SERVICE, ["backfill", str(tmp_path / name)]) == 2

        message = capsys.readouterr().err
        assert f"{tmp_path / name} can't be read: {cause}" in message
