"""The folder of a run of tests, and those of killed runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from local_stack.directory_lock import DirectoryClosedError
from local_stack.identities import ProcessIdentity
from local_stack.runs import run_directory

KILLED = """
import os, signal, sys
from pathlib import Path
from local_stack.postgres import PostgresServer
from local_stack.runs import run_directory

with run_directory(Path(sys.argv[1])) as directory:
    print(PostgresServer.start(directory / "postgres", durable=False).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_ended_and_deleted(tmp_path: Path) -> None:
    """Server and folder; the folder of a running process stays."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True, check=False
    )
    server = ProcessIdentity.of(int(done.stdout))
    living = tmp_path / _name_of(ProcessIdentity.of(1))
    living.mkdir()

    with run_directory(tmp_path) as own:
        assert server is not None
        assert not server.alive
        assert set(tmp_path.iterdir()) == {own, living}
    assert set(tmp_path.iterdir()) == {living}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The error names it, instead of a traceback for each test."""
    (tmp_path / "file").touch()

    with (
        pytest.raises(DirectoryClosedError, match="file/runs can't be written: Not a directory"),
        run_directory(tmp_path / "file" / "runs"),
    ):
        pass


def _name_of(process: ProcessIdentity | None) -> str:
    assert process is not None
    return f"{process.pid}-{process.started}"
