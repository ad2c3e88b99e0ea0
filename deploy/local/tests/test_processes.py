"""Child processes: watched while waited for, stopped with their descendants."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_stack.directory_lock import DirectoryInUseError, DirectoryLock
from local_stack.identities import ProcessIdentity, descendants
from local_stack.processes import (
    Child,
    ChildDiedError,
    ChildNotReadyError,
    ChildNotStartedError,
    exit_on_sigterm,
)
from local_stack.programs import ProgramFailedError, run_program

ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath)}
SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
IGNORES_SIGTERM = (
    sys.executable,
    "-c",
    (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print('started', flush=True); time.sleep(600)"
    ),
)


def test_a_child_that_dies_while_waited_for_is_reported_with_its_log(tmp_path: Path) -> None:
    """The wait ends at once, not at its deadline, with the last output of the child."""
    command = (sys.executable, "-c", "print('no such port'); raise SystemExit(3)")
    child = Child.start("part", command, log=tmp_path / "log", env=ENVIRONMENT)
    began = time.monotonic()

    with pytest.raises(ChildDiedError, match=r"part ended with code 3(?s:.*)no such port"):
        child.wait_until(lambda: False, seconds=60)

    assert time.monotonic() - began < 30


def test_a_child_that_is_not_ready_in_time_is_not_reported_as_dead(tmp_path: Path) -> None:
    """The errors differ."""
    child = Child.start("part", SLEEP, log=tmp_path / "log", env=ENVIRONMENT)

    with pytest.raises(ChildNotReadyError, match="part is not ready after 0 s"):
        child.wait_until(lambda: False, seconds=0.1)

    child.kill()


def test_a_child_that_cannot_be_started_is_reported_with_the_reason(tmp_path: Path) -> None:
    """With the system's message; an empty log is reported as such."""
    with pytest.raises(ChildNotStartedError, match=r"part could not be started: .*No such file"):
        Child.start("part", [tmp_path / "absent"], log=tmp_path / "log", env=ENVIRONMENT)

    child = Child.start("part", ["false"], log=tmp_path / "log", env=ENVIRONMENT)
    with pytest.raises(ChildDiedError, match=r"the end of .*log:\n\(it is empty\)"):
        child.wait_until(lambda: False, seconds=60)


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    """Stopping always ends, and the child has ended then."""
    log = tmp_path / "log"
    child = Child.start("part", IGNORES_SIGTERM, log=log, env=ENVIRONMENT)
    child.wait_until(lambda: "started" in log.read_text(encoding="utf-8"), seconds=30)

    child.stop(grace=0.2)

    assert child.exit_code == -signal.SIGKILL


def test_stopping_a_child_ends_its_own_children(tmp_path: Path) -> None:
    """A grandchild whose parent was killed does not stay behind."""
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    command = (sys.executable, "-c", nested, "import time; time.sleep(600)")
    child = Child.start("part", command, log=tmp_path / "log", env=ENVIRONMENT)
    child.wait_until(lambda: bool(descendants(child.pid)), seconds=30)
    grandchildren = descendants(child.pid)
    for grandchild in grandchildren:
        grandchild.send(signal.SIGTERM)

    child.stop(grace=5)

    assert not any(each.alive for each in grandchildren)


def test_sigterm_stops_what_a_with_block_started() -> None:
    """A terminated command leaves its ``with`` blocks, so its children are stopped."""
    left = []

    @contextmanager
    def running() -> Iterator[None]:
        try:
            yield
        finally:
            left.append("stopped")

    with pytest.raises(SystemExit), exit_on_sigterm(), running():
        signal.raise_signal(signal.SIGTERM)

    assert left == ["stopped"]


def test_a_locked_folder_is_refused_until_released(tmp_path: Path) -> None:
    """One owner at a time, and the refusal names it."""
    lock = DirectoryLock.acquire(tmp_path)
    with pytest.raises(DirectoryInUseError, match=str(os.getpid())):
        DirectoryLock.acquire(tmp_path)
    lock.release()

    DirectoryLock.acquire(tmp_path).release()


def test_servers_of_a_crashed_owner_are_ended_by_the_next(tmp_path: Path) -> None:
    """A killed owner leaves servers behind; the next owner ends them."""
    owner = subprocess.run(
        [sys.executable, "-c", _CRASHING_OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    orphan = ProcessIdentity.of(int(owner.stdout))
    assert owner.returncode == -signal.SIGKILL
    assert orphan is not None

    DirectoryLock.acquire(tmp_path).release()

    assert not orphan.alive


def test_a_reused_process_number_is_not_mistaken_for_the_process(tmp_path: Path) -> None:
    """A process that has the id of an ended one is left running."""
    (tmp_path / "pids.json").write_text(f'[[{os.getpid()}, "1"]]', encoding="utf-8")

    DirectoryLock.acquire(tmp_path).release()

    assert ProcessIdentity.of(os.getpid()) is not None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((sys.executable, "-c", "print('bad key'); raise SystemExit(2)"), "failed with code 2"),
        ((*SLEEP,), "took more than"),
        (("/nonexistent/program",), "could not be started"),
    ],
)
def test_a_failed_program_is_reported_with_its_cause(command: tuple[str, ...], said: str) -> None:
    """Failing, hanging and missing programs have different errors."""
    with pytest.raises(ProgramFailedError, match=said):
        run_program(command, env=ENVIRONMENT, seconds=1.0)


_CRASHING_OWNER = """
import os, signal, subprocess, sys
from pathlib import Path
from local_stack.directory_lock import DirectoryLock
lock = DirectoryLock.acquire(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
lock.write_pids(child.pid)
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_program_that_fails_without_output_is_reported_so() -> None:
    """No error ends with a colon."""
    with pytest.raises(ProgramFailedError, match=r"false failed with code 1, and printed nothing$"):
        run_program(["false"], env=ENVIRONMENT, seconds=30)


def test_a_program_that_takes_too_long_is_quoted() -> None:
    """What it printed until then is in the error."""
    command = ["sh", "-c", "echo waiting for a lock; exec sleep 600"]

    with pytest.raises(ProgramFailedError, match=r"took more than 1 s:\nwaiting for a lock$"):
        run_program(command, env=ENVIRONMENT, seconds=1)


def test_an_unknown_user_is_named() -> None:
    """A missing user is reported, without a traceback."""
    with pytest.raises(ProgramFailedError, match=r"could not be started(?s:.*)no-such-user"):
        run_program(["true"], env=ENVIRONMENT, seconds=30, user="no-such-user")
