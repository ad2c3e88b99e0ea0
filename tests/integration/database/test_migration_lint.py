"""The migrations' SQL, checked by a linter for locks that would block a running service."""

import subprocess
import sys
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from nexus_database.compatibility import ATTRIBUTE

SQUAWK = Path(sys.executable).with_name("squawk")

EXCUSED = (
    "prefer-robust-stmts",  # a migration is one transaction: it never fails part way
    "prefer-bigint-over-int",  # counters of attempts and generations stay small
    "prefer-bigint-over-smallint",  # so do major versions
    "require-timeout-settings",  # the migration runner sets them
)


def revisions() -> list[str]:
    """Return the module of every revision of every service."""
    root = Path(__file__).parents[3] / "services"
    return sorted(
        f"{path.parents[2].name}.migrations.versions.{path.stem}"
        for path in root.glob("*/src/*/migrations/versions/[0-9]*.py")
    )


def sql_of(revision: str) -> str:
    """Return what a revision's upgrade executes."""
    written = StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": written}
    )
    with Operations.context(context):
        import_module(revision).upgrade()
    return written.getvalue()


@pytest.mark.parametrize("revision", revisions())
def test_migration_names_the_oldest_release_it_serves(revision: str) -> None:
    """Without it every running process becomes unready; the first migration has none before."""
    module = import_module(revision)

    assert module.down_revision is None or hasattr(module, ATTRIBUTE)


def linted(sql: str) -> subprocess.CompletedProcess[str]:
    """Run the linter on ``sql``, as it would run: in one transaction."""
    command = [str(SQUAWK), "--assume-in-transaction", "--pg-version", "15"]
    for rule in EXCUSED:
        command += ["--exclude", rule]
    return subprocess.run(command, input=sql, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("revision", revisions())
def test_migration_blocks_no_running_service(revision: str) -> None:
    """The linter reports nothing on the SQL of any revision."""
    found = linted(sql_of(revision))

    assert found.returncode == 0, found.stdout + found.stderr


def test_linter_reports_a_lock_that_blocks_writers() -> None:
    """A linter that reports nothing on any SQL would prove nothing."""
    found = linted("ALTER TABLE usage_events ADD COLUMN x int NOT NULL; CREATE INDEX i ON t (x);")

    assert found.returncode == 1
