"""Input files of commands."""

import io
import sys
from pathlib import Path

import pytest

from nexus_service.input_files import UnreadableFileError, lines_of


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (b"", []),
        (b"a\nb", ["a\n", "b"]),
        ("\ufeffZoë\r\n".encode(), ["Zoë\r\n"]),
        ("a\u2028b\n".encode(), ["a\u2028b\n"]),
    ],
)
def test_lines_are_read_without_byte_order_mark(
    written: bytes, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file and from standard input, in any locale."""
    file = tmp_path / "list"
    file.write_bytes(written)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written), encoding="ascii"))

    assert list(lines_of(str(file))) == lines
    assert list(lines_of(None)) == lines


def test_unreadable_file_is_named_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another encoding, absent, a folder, or closed standard input."""
    other = tmp_path / "other"
    other.write_bytes("Zoë".encode("latin-1"))
    for file, error in (
        (other, "is not in UTF-8"),
        (tmp_path / "absent", "can't be read: No such file or directory"),
        (tmp_path, "can't be read: Is a directory"),
    ):
        with pytest.raises(UnreadableFileError, match=f"{file} {error}"):
            list(lines_of(str(file)))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UnreadableFileError, match="standard input is closed"):
        list(lines_of(None))
