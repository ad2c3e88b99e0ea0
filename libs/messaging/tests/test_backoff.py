"""Pauses between attempts."""

from itertools import pairwise

from nexus_messaging.backoff import Backoff, pause_after


def test_pauses_double_up_to_the_longest() -> None:
    """A reset begins again with the first."""
    backoff = Backoff(0.5, 3.0)

    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next() == 0.5


def test_thousands_of_failures_pause_as_long_as_a_few() -> None:
    """A circuit breaker that opens every minute has failed so often within a day."""
    pauses = [pause_after(failures, 2.0, 300.0) for failures in range(5000)]

    assert pauses[-1] == 300.0
    assert all(before <= after for before, after in pairwise(pauses))
