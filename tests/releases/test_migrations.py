"""What a release has migrated is history: a database that ran it never sees a later change."""

import pytest

from releases.release import ROOT, committed, named_commit

pytestmark = pytest.mark.long


def test_the_migrations_of_the_previous_release_are_as_they_were() -> None:
    """An index added to one of them would be on new databases only."""
    commit = named_commit()
    then = [
        path
        for path in committed(commit).splitlines()
        if "/migrations/versions/" in path and path.endswith(".py")
    ]

    changed = [path for path in then if (ROOT / path).read_text() != committed(commit, path)]

    assert len(then) >= 3
    assert changed == []
