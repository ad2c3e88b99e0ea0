"""The command line, as far as it goes without a database or a broker."""

from pathlib import Path

import pytest

from customer_provisioner.__main__ import SERVICE
from customer_provisioner.commands import _lines
from customer_provisioner.user_list import UnreadableListError
from nexus_messaging.command import run


@pytest.mark.parametrize("rate", ["0", "-1", "many", "inf", "nan"])
def test_a_pace_that_is_none_is_refused(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what is wanted instead, before anything is read."""
    with pytest.raises(SystemExit) as ending:
        run(SERVICE, ["backfill", f"--throttle={rate}"])

    assert ending.value.code == 2
    assert "is no number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """A mistyped name or a file in another encoding: one line, no traceback."""
    file = tmp_path / "users.csv"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(UnreadableListError, match=r"users\.csv can't be read"):
        list(_lines(str(file)))
