"""Released migrations never change: a database that ran one does not get the change."""

import pytest

from releases.release import ROOT, committed, named_commit

pytestmark = pytest.mark.long


def test_migrations_of_the_previous_release_are_unchanged() -> None:
    """An index added to one of them would exist on new databases only."""
    commit = named_commit()
    released = [
        path
        for path in committed(commit).splitlines()
        if "/migrations/versions/" in path and path.endswith(".py")
    ]

    changed = [path for path in released if (ROOT / path).read_text() != committed(commit, path)]

    assert len(released) >= 3
    assert changed == []
