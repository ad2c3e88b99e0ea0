"""The spool on a real disk: what is stored stays, and trouble with the disk is an error in time."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from nexus_publisher import spool_file
from nexus_publisher.entries import Entry
from nexus_publisher.spool import CALLER_SECONDS, Spool
from nexus_publisher.spool_file import SpoolUnavailableError, Synchronous

TYPE = "tool.executed.v1"
MIB = 1024 * 1024
SLACK = 1.0
"""Seconds that a busy machine may add to a wait of milliseconds."""

Open = Callable[..., Spool]


@pytest.fixture
def aside() -> list[Path]:
    """Return the damaged files that were reported."""
    return []


@pytest.fixture
def open_spool(tmp_path: Path, aside: list[Path]) -> Iterator[Open]:
    """Return a function that opens the spool as another process would."""
    opened: list[Spool] = []

    def make(max_bytes: int = 4 * MIB, synchronous: Synchronous = "normal") -> Spool:
        opened.append(
            Spool(
                tmp_path / "spool",
                max_bytes=max_bytes,
                synchronous=synchronous,
                on_set_aside=aside.append,
            )
        )
        return opened[-1]

    yield make
    for spool in opened:
        spool.close()


@pytest.fixture(autouse=True)
def opened_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a file that can't be opened alone for no time."""
    monkeypatch.setattr(spool_file, "RETRY_SECONDS", 0.0)


def entry(size: int = 300, event_type: str = TYPE) -> Entry:
    """Return an event of ``size`` bytes."""
    return Entry(uuid4(), event_type, os.urandom(size), recorded_at=5.0)


def ids(spool: Spool, event_type: str = TYPE) -> list[object]:
    """Return the ids of what waits."""
    return [each.event_id for each in spool.read(event_type, 10_000, 100 * MIB)]


def database(spool: Spool) -> Path:
    """Return the spool's file."""
    spool.open()
    path = spool._delivering.path
    assert path is not None
    return path


def test_events_come_back_with_the_same_bytes_in_their_order(open_spool: Open) -> None:
    """To whichever process opens the spool next."""
    first, second, user = entry(), entry(), entry(event_type="user.created.v1")
    spool = open_spool()
    for each in (first, user):
        spool.add(each)
    spool.add_all([second])
    spool.close()

    later = open_spool()

    assert later.types() == [TYPE, "user.created.v1"]
    found = later.read(TYPE, 10, MIB)
    assert [(each.event_id, each.body) for each in found] == [
        (each.event_id, each.body) for each in (first, second)
    ]
    assert later.waiting().events == 3
    assert later.waiting().oldest_at == 5.0


def test_only_what_is_removed_goes(open_spool: Open) -> None:
    """A row goes after its confirm, and no other with it."""
    spool = open_spool()
    kept, gone = entry(), entry()
    spool.add_all([kept, gone])

    spool.remove([each for each in spool.read(TYPE, 9, MIB) if each.event_id == gone.event_id])

    assert ids(spool) == [kept.event_id]


def test_files_are_their_owners_alone(open_spool: Open) -> None:
    """Bodies hold e-mail addresses."""
    spool = open_spool()
    spool.add(entry())

    for path in database(spool).parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_another_writer_delays_a_caller_by_milliseconds(open_spool: Open) -> None:
    """SQLite has one writer; the caller keeps its event in memory instead of waiting."""
    spool = open_spool()
    spool.add(entry())
    with sqlite3.connect(database(spool), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()

        with pytest.raises(SpoolUnavailableError, match="SQLITE_BUSY"):
            spool.add(entry())

        assert CALLER_SECONDS <= time.monotonic() - began < CALLER_SECONDS + SLACK
        other.execute("ROLLBACK")
    other.close()
    spool.add(entry())


def test_spool_is_bounded_and_takes_events_again_once_some_are_gone(open_spool: Open) -> None:
    """Files, log included, stay near the limit."""
    spool = open_spool(max_bytes=MIB)

    def fill() -> None:
        while True:
            spool.add(entry(2_000))
            spool.checkpoint()

    with pytest.raises(SpoolUnavailableError, match="SQLITE_FULL"):
        fill()

    assert spool.waiting().events * 2_000 > MIB / 3
    assert database(spool).stat().st_size <= MIB
    spool.remove(spool.read(TYPE, 100, MIB))
    spool.add(entry(2_000))


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
def test_durability_is_as_it_was_chosen(
    synchronous: Synchronous, level: int, open_spool: Open
) -> None:
    """SQLite's levels: https://www.sqlite.org/pragma.html#pragma_synchronous."""
    spool = open_spool(synchronous=synchronous)

    for file in (spool._adding, spool._delivering):
        found = file.run(lambda connection: connection.execute("PRAGMA synchronous").fetchone())
        assert found == (level,)


def test_log_does_not_grow_without_end(open_spool: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is long it is emptied, and what was in it is in the file."""
    monkeypatch.setattr(spool_file, "LOG_BYTES", 100_000)
    spool = open_spool()
    for _ in range(100):
        spool.add(entry(2_000))
    log = Path(f"{database(spool)}-wal")
    assert log.stat().st_size > 100_000

    spool._delivering.run(lambda _: None)
    spool.checkpoint()

    assert log.stat().st_size == 0
    assert spool.waiting().events == 100


def test_one_process_delivers_and_another_takes_over(open_spool: Open) -> None:
    """The lock ends with its holder."""
    first, second = open_spool(), open_spool()
    first.add(entry())

    assert (first.lead(), second.lead(), first.lead()) == (True, False, True)
    first.close()
    assert second.lead()


@pytest.mark.parametrize("damage", [b"no database", os.urandom(40_000)])
def test_damaged_file_is_set_aside_when_it_is_opened(
    damage: bytes, open_spool: Open, aside: list[Path], tmp_path: Path
) -> None:
    """A new one takes its place, and the old one is kept to be looked at."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "events-old.sqlite").write_bytes(damage)
    spool = open_spool()

    kept = entry()
    spool.add(kept)

    assert ids(spool) == [kept.event_id]
    assert [path.read_bytes() for path in aside] == [damage]


def test_file_that_is_damaged_in_use_is_set_aside_by_all_processes(
    open_spool: Open, aside: list[Path]
) -> None:
    """Whoever meets the damage replaces the file; the others follow at their next use."""
    spool, other = open_spool(), open_spool()
    spool.add_all([entry(2_000) for _ in range(100)])
    other.add(entry())
    spool.checkpoint()
    path = database(other)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(SpoolUnavailableError):
        spool.read(TYPE, 1000, 100 * MIB)

    kept = [entry(), entry()]
    spool.add(kept[0])
    other.add(kept[1])

    assert ids(spool) == [each.event_id for each in kept]
    assert ids(other) == [each.event_id for each in kept]
    assert len(aside) == 1


def test_folder_that_is_deleted_in_use_is_made_again(open_spool: Open, tmp_path: Path) -> None:
    """What is stored afterwards is on disk, not in a deleted file."""
    spool = open_spool()
    spool.add(entry())
    shutil.rmtree(tmp_path / "spool")

    kept = entry()
    spool.add(kept)

    spool.close()
    assert ids(open_spool()) == [kept.event_id]


def test_folder_that_cannot_be_made_is_an_error_until_it_can(
    open_spool: Open, tmp_path: Path
) -> None:
    """As on a file system that is read-only or full."""
    (tmp_path / "spool").write_text("a file")
    spool = open_spool()
    with pytest.raises(SpoolUnavailableError, match="FileExistsError"):
        spool.add(entry())

    (tmp_path / "spool").unlink()

    spool.add(entry())


def test_row_of_another_file_is_not_deleted(open_spool: Open, tmp_path: Path) -> None:
    """The file was replaced while its events were on their way; row numbers begin again."""
    spool = open_spool()
    spool.add(entry())
    sent = spool.read(TYPE, 1, MIB)
    shutil.rmtree(tmp_path / "spool")
    kept = entry()
    spool.add(kept)

    spool.remove(sent)

    assert ids(spool) == [kept.event_id]


def test_what_cannot_be_deleted_is_not_sent_again(open_spool: Open) -> None:
    """A full disk keeps confirmed events in the file; the others go on, and they go later."""
    spool = open_spool()
    first, second = entry(), entry()
    spool.add_all([first, second])
    confirmed = spool.read(TYPE, 1, MIB)
    with sqlite3.connect(database(spool), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolUnavailableError):
            spool.remove(confirmed)
        assert ids(spool) == [second.event_id]
        assert spool.waiting().events == 1
        other.execute("ROLLBACK")
    other.close()

    spool.remove(spool.read(TYPE, 1, MIB))

    assert spool.waiting().events == 0
    spool.close()
    assert ids(open_spool()) == []


def test_fork_finds_no_connection_open(open_spool: Open) -> None:
    """SQLite's locks don't pass to a child; while a process forks, its threads go without."""
    spool = open_spool()
    spool.add(entry())

    assert spool.suspend(1.0)

    assert (spool._adding._connection, spool._delivering._connection) == (None, None)
    with pytest.raises(SpoolUnavailableError):
        spool.add(entry())
    spool.resume()
    spool.add(entry())
    assert spool.waiting().events == 2


def test_open_spool_holds_its_locks(open_spool: Open) -> None:
    """To open and close a file drops all locks of the process on it: the log would be deleted.

    https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    spool = open_spool()
    spool.add(entry())
    open_spool().open()
    leave_log = f"sqlite3.connect({str(database(spool))!r}).execute('PRAGMA journal_mode = DELETE')"

    other = subprocess.run(
        [sys.executable, "-c", f"import sqlite3; {leave_log}"], capture_output=True, check=False
    )

    assert b"database is locked" in other.stderr
