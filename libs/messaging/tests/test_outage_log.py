"""An outage of the broker is logged when it begins and when it ends."""

from nexus_messaging.errors import PublishError
from nexus_messaging.outage_log import OutageLog


def lines_of(*rounds: list[PublishError | None]) -> list[tuple[str, int]]:
    """Return what is logged in these rounds: the first errors, and the sum of all."""
    lines: list[tuple[str, int]] = []
    log = OutageLog(
        lambda errors: lines.append(("began", len(errors))),
        lambda failed: lines.append(("ended", failed)),
    )
    for results in rounds:
        log.round(results)
    return lines


def test_outage_is_logged_once_however_many_rounds_fail() -> None:
    """A second outage is logged again."""
    error = PublishError("not confirmed")

    lines = lines_of([None], [error, None], [error, error], [None], [None], [error])

    assert lines == [("began", 1), ("ended", 3), ("began", 1)]


def test_round_without_publishes_ends_no_outage() -> None:
    """Nothing shows that the broker confirms again."""
    error = PublishError("not confirmed")

    assert lines_of([error], [], [None]) == [("began", 1), ("ended", 1)]
