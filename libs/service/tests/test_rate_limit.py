"""How much a key may send."""

from nexus_service.rate_limit import RateLimiter


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


def test_a_key_may_send_a_burst_and_then_its_rate() -> None:
    """A refusal says after how many seconds the same request will be accepted."""
    clock = Clock()
    limit = RateLimiter(10.0, 100.0, clock)

    assert limit.take("hub", 100) == 0
    assert limit.take("hub", 25) == 3
    clock.now += 3
    assert limit.take("hub", 25) == 0
    assert limit.take("hub", 6) == 1


def test_one_key_does_not_use_up_another_s_limit() -> None:
    """Keys of one name share theirs, so that replacing a key does not double it."""
    limit = RateLimiter(10.0, 100.0, Clock())

    assert limit.take("hub", 100) == 0
    assert limit.take("web", 100) == 0


def test_an_idle_key_saves_up_one_burst_at_most() -> None:
    """However long it was idle."""
    clock = Clock()
    limit = RateLimiter(10.0, 100.0, clock)
    assert limit.take("hub", 1) == 0

    clock.now = 1e9

    assert limit.take("hub", 100) == 0
    assert limit.take("hub", 1) > 0
