"""Where a PostgreSQL server's data are while it runs, also for root, whose server has fewer rights.

The folders of pytest are accessible to its user only, so root's server is always outside of them.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from local_stack.identities import ProcessIdentity, await_exit
from local_stack.postgres import PostgresServer
from local_stack.sql import run_sql

# A process that starts a server, prints its process id, and is killed.
KILLED = """
import os, signal, sys
from pathlib import Path
from local_stack.postgres import PostgresServer
from local_stack.sql import run_sql

server = PostgresServer.start(Path(sys.argv[1]), durable=False)
run_sql(server.superuser_url, "CREATE DATABASE kept")
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def data_of(pid: int) -> Path:
    """Return the folder of a server's data, its working directory."""
    return Path(f"/proc/{pid}/cwd").readlink()


def start_and_be_killed(directory: Path) -> ProcessIdentity:
    """Start a server in a process that is then killed; return the server, which runs."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, directory], stdout=subprocess.PIPE, text=True, check=False
    )
    server = ProcessIdentity.of(int(done.stdout))
    assert server is not None
    return server


def test_a_server_below_a_closed_folder_has_no_rights_of_root(tmp_path: Path) -> None:
    """It has no capability, and neither root's user nor its group."""
    tmp_path.chmod(0o700)

    with PostgresServer.start(tmp_path / "postgres", durable=False) as server:
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")

    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert "0" not in fields["Uid"].split()
    assert int(fields["CapEff"], 16) == 0


def test_data_are_in_their_own_folder_once_the_server_has_ended(tmp_path: Path) -> None:
    """Deleting that folder deletes everything."""
    with PostgresServer.start(tmp_path, durable=False) as server:
        while_running = data_of(server.pids["PostgreSQL"])

    assert (tmp_path / "data" / "PG_VERSION").is_file()
    assert not (tmp_path / "outside").is_symlink()
    assert while_running == tmp_path / "data" or not while_running.parent.exists()


def test_data_of_a_killed_run_are_found_again(tmp_path: Path) -> None:
    """The server that was left is ended, and the next one uses its data."""
    left = start_and_be_killed(tmp_path)

    with PostgresServer.start(tmp_path, durable=False) as server:
        kept = run_sql(
            server.superuser_url, "SELECT count(*) FROM pg_database WHERE datname='kept'"
        )

    assert kept == "1\n"
    assert not left.alive


def test_data_outside_are_deleted_once_their_own_folder_is_gone(tmp_path: Path) -> None:
    """By the next server that is started; nothing else refers to them."""
    left = start_and_be_killed(tmp_path / "first")
    data = data_of(left.pid)
    left.send(signal.SIGKILL)
    assert await_exit([left], seconds=10)
    shutil.rmtree(tmp_path / "first")

    PostgresServer.start(tmp_path / "second", durable=False).stop()

    assert not data.exists()


def test_data_that_another_user_made_become_the_servers(tmp_path: Path) -> None:
    """As if root works in a user's folder: PostgreSQL refuses data of another user."""
    PostgresServer.start(tmp_path, durable=False).stop()
    if os.geteuid() == 0:
        for path in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
            os.chown(path, 12345, 12345)

    with PostgresServer.start(tmp_path, durable=False) as server:
        assert run_sql(server.superuser_url, "SELECT 1") == "1\n"
