"""Dead letters that the guard passes, holds back, or answers by stopping the queue.

A flood stops a queue whose only publisher is a service of this project. On a queue for outside
publishers the flood of one source is held back, and the queue continues.
"""

from datetime import UTC, datetime

import pytest

from nexus_messaging.flood import Flood, FloodLimit
from nexus_messaging.flood_guard import FloodGuard, FloodGuards
from nexus_messaging.message import Delivery, Message
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Acknowledge, DeadLetter, HandedBack, Progress, Retry
from nexus_messaging.sources import KNOWN_AFTER
from nexus_messaging.topology import (
    EVENTS,
    RETRY_RETURN,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
)
from support import deliveries

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Watcher:
    """Keeps what the guards show."""

    def __init__(self) -> None:
        self.floods: list[tuple[str, Flood | None]] = []
        self.held: dict[str, int] = {}

    def show_flood(self, queue: str, flood: Flood | None) -> None:
        """Take note of a stop or its end."""
        self.floods.append((queue, flood))

    def show_held_sources(self, queue: str, sources: int) -> None:
        """Take note of the number of sources held back."""
        self.held[queue] = sources


def guards(watcher: Watcher | None = None) -> FloodGuards:
    """Return guards that let five of the last ten be dead-lettered."""
    return FloodGuards(FloodLimit(0.5, 10), watcher or Watcher())


def delivery(
    source: str | None = None, *, queue: str = TOOL_EXECUTED_QUEUE, exchange: str = EVENTS
) -> Delivery:
    """Return a delivery from ``source``, or of an unreadable message."""
    body = b"{" if source is None else f'{{"source":"{source}"}}'.encode()
    return deliveries.delivery(Message(body), queue, exchange)


def of_ours(exchange: str = EVENTS) -> Delivery:
    """Return a delivery of a queue that only a service of this project publishes to."""
    return delivery("usage-ingest", queue=USAGE_RECORDED_QUEUE, exchange=exchange)


def letter(reason: Reason = Reason.UNREADABLE) -> DeadLetter:
    """Return the decision to dead-letter."""
    return DeadLetter(reason, "", 1, NOW)


def passes(guard: FloodGuard, each: Delivery) -> bool:
    """Return whether a dead letter of ``each`` passes."""
    return guard.overrule(each, letter()) is None


def known(guard: FloodGuard, *names: str) -> None:
    """Make sources known: enough messages of each are processed."""
    for name in names:
        for _ in range(KNOWN_AFTER):
            assert guard.overrule(delivery(name), Acknowledge(name)) is None


def flood(guard: FloodGuard, name: str | None, number: int = 100) -> int:
    """Dead-letter messages of one source; return how many passed."""
    return sum(passes(guard, delivery(name)) for _ in range(number))


async def test_dead_letters_after_a_flood_are_handed_back() -> None:
    """The dead letter that shows the flood passes; later acks and retries pass, too."""
    guard = guards().of(USAGE_RECORDED_QUEUE)

    passed = [passes(guard, of_ours()) for _ in range(20)]

    assert passed == [True] * 6 + [False] * 14
    assert guard.overrule(of_ours(), letter()) == HandedBack()
    assert guard.overrule(of_ours(), Acknowledge()) is None
    assert guard.overrule(of_ours(), Retry(TIERS[0], Progress())) is None


async def test_moved_dead_letters_do_not_count_towards_a_flood() -> None:
    """They were dead letters before; if they are processed, they do not count either."""
    guard = guards().of(USAGE_RECORDED_QUEUE)

    assert all(passes(guard, of_ours(exchange="")) for _ in range(100))
    for _ in range(100):
        guard.overrule(of_ours(exchange=""), Acknowledge())
    assert guard.flood is None
    for _ in range(6):
        passes(guard, of_ours())
    assert guard.flood == Flood(6, 6, Reason.UNREADABLE)


async def test_retries_do_not_count_towards_a_flood() -> None:
    """A message with five attempts is one dead letter, not a fifth of one."""
    guard = guards().of(USAGE_RECORDED_QUEUE)

    for _ in range(6):
        for _ in range(4):
            guard.overrule(of_ours(RETRY_RETURN), Retry(TIERS[0], Progress()))
        passes(guard, of_ours(RETRY_RETURN))

    assert guard.flood == Flood(6, 6, Reason.UNREADABLE)


async def test_flood_stops_one_queue_and_resuming_resets_its_window() -> None:
    """Each queue has its own window; after resuming, a full flood is needed to stop it again."""
    watcher = Watcher()
    both = guards(watcher)
    flooded, other = both.of(USAGE_RECORDED_QUEUE), both.of(USAGE_OUTCOMES_QUEUE)
    for _ in range(6):
        passes(flooded, of_ours())
    why = flooded.flood

    assert other.flood is None
    assert both.of(USAGE_RECORDED_QUEUE) is flooded
    assert await both.remark() == f"{USAGE_RECORDED_QUEUE} is stopped: {why}"
    both.resume()
    await flooded.wait_until_resumed()
    await other.wait_until_resumed()

    assert watcher.floods == [(USAGE_RECORDED_QUEUE, why), (USAGE_RECORDED_QUEUE, None)]
    assert await both.remark() is None
    assert [passes(flooded, of_ours()) for _ in range(7)] == [True] * 6 + [False]


async def test_a_source_that_floods_is_held_back_alone() -> None:
    """Its dead letters wait in the longest tier; its good messages and other sources pass."""
    watcher = Watcher()
    all_of_them = guards(watcher)
    guard = all_of_them.of(TOOL_EXECUTED_QUEUE)
    known(guard, "bad", "good")

    passed = flood(guard, "bad")

    assert passed == 6
    assert guard.overrule(delivery("bad"), letter()) == HandedBack(TIERS[-1])
    assert guard.overrule(delivery("bad"), Acknowledge("bad")) is None
    assert passes(guard, delivery("good"))
    assert passes(guard, delivery(None))
    assert guard.flood is None
    assert watcher.held == {TOOL_EXECUTED_QUEUE: 1}
    assert await all_of_them.remark() == (
        f"{TOOL_EXECUTED_QUEUE} holds back dead letters of bad"
        " (6 of the last 7 messages were dead-lettered, most of them as unreadable)"
    )


async def test_the_only_source_that_floods_is_held_back() -> None:
    """The next publisher is not affected."""
    guard = guards().of(TOOL_EXECUTED_QUEUE)
    known(guard, "only")

    flood(guard, "only")

    assert guard.flood is None
    assert set(guard.held) == {"only"}


async def test_unreadable_messages_count_as_one_source() -> None:
    """Their flood is held back and stops no queue."""
    guard = guards().of(TOOL_EXECUTED_QUEUE)
    known(guard, "good")

    assert flood(guard, None) == 6
    assert guard.flood is None
    assert set(guard.held) == {None}
    assert passes(guard, delivery("good"))


@pytest.mark.parametrize("names", [1, 3, 1000])
async def test_new_name_for_each_message_does_not_evade_the_limit(names: int) -> None:
    """Names without processed messages share one window, and do not stop the queue."""
    guard = guards().of(TOOL_EXECUTED_QUEUE)
    known(guard, "good")

    passed = 0
    for number in range(1000):
        guard.overrule(delivery("good"), Acknowledge("good"))
        passed += passes(guard, delivery(f"bad{number % names}"))

    assert passed == 6
    assert guard.flood is None
    assert set(guard.held) == {None}


async def test_new_names_without_other_traffic_stop_no_queue() -> None:
    """Even when no other source publishes."""
    guard = guards().of(TOOL_EXECUTED_QUEUE)

    assert sum(passes(guard, delivery(f"bad{number}")) for number in range(1000)) == 6
    assert guard.flood is None


async def test_most_known_sources_at_once_stop_the_queue() -> None:
    """The fault is on this side: the limit of the queue applies, not that of each source."""
    guard = guards().of(TOOL_EXECUTED_QUEUE)
    known(guard, "a", "b", "c")

    passed = sum(passes(guard, delivery("abc"[number % 3])) for number in range(30))

    assert passed == 6
    assert guard.flood == Flood(6, 10, Reason.UNREADABLE)
    assert not guard.held
    assert guard.overrule(delivery("a"), letter()) == HandedBack()


async def test_flood_of_unknown_sources_alone_stops_the_queue() -> None:
    """A release that cannot read anything starts so: no source can become known."""
    guard = guards().of(TOOL_EXECUTED_QUEUE)

    passed = sum(passes(guard, delivery("ab"[number % 2])) for number in range(30))

    assert passed == 6
    assert guard.flood == Flood(6, 6, Reason.UNREADABLE)


async def test_flood_of_half_of_the_sources_stops_no_queue() -> None:
    """Two sources that flood beside two healthy ones are held back, one after the other."""
    guard = FloodGuards(FloodLimit(0.5, 40), Watcher()).of(TOOL_EXECUTED_QUEUE)
    known(guard, "a", "b", "c", "d")

    for _ in range(100):
        for bad in ("a", "b"):
            passes(guard, delivery(bad))
        for good in ("c", "d"):
            guard.overrule(delivery(good), Acknowledge(good))

    assert guard.flood is None
    assert set(guard.held) == {"a", "b"}


async def test_resuming_releases_held_sources() -> None:
    """It takes as many dead letters again until it is held back again."""
    watcher = Watcher()
    all_of_them = guards(watcher)
    guard = all_of_them.of(TOOL_EXECUTED_QUEUE)
    known(guard, "bad")
    flood(guard, "bad")

    all_of_them.resume()

    assert watcher.held == {TOOL_EXECUTED_QUEUE: 0}
    assert await all_of_them.remark() is None
    assert flood(guard, "bad") == 6


async def test_moved_message_of_a_held_source_passes() -> None:
    """The operator looks for it in the dead-letter queue. It does not make its source known."""
    guard = guards().of(TOOL_EXECUTED_QUEUE)
    for _ in range(2 * KNOWN_AFTER):
        guard.overrule(delivery("bad", exchange=""), Acknowledge("bad"))
    flood(guard, "bad")

    assert set(guard.held) == {None}
    assert passes(guard, delivery("bad", exchange=""))


async def test_message_that_crashes_consumers_passes_a_held_source() -> None:
    """A copy would start with new counters and crash ten more consumers."""
    guard = guards().of(TOOL_EXECUTED_QUEUE)
    flood(guard, None)

    assert guard.overrule(delivery(None), letter(Reason.CRASHED_CONSUMER)) is None


async def test_name_of_a_source_is_shown_without_control_characters() -> None:
    """The contract allows signs that turn the reading direction, or begin a terminal's command."""
    all_of_them = guards()
    guard = all_of_them.of(TOOL_EXECUTED_QUEUE)
    name = "caf\u00e9\u202e\u009b31m"
    known(guard, name)

    flood(guard, name)

    assert "of caf\u00e9\\u202e\\x9b31m (" in str(await all_of_them.remark())


async def test_a_remark_names_ten_sources_and_counts_the_rest() -> None:
    """A line stays a line."""
    all_of_them = FloodGuards(FloodLimit(0.5, 1000), Watcher())
    guard = all_of_them.of(TOOL_EXECUTED_QUEUE)
    known(guard, *(f"bad{number}" for number in range(12)), *(f"w{n}" for n in range(20)))

    for number in range(12):
        flood(guard, f"bad{number}", 501)

    assert len(guard.held) == 12
    assert str(await all_of_them.remark()).endswith("and 2 more")


async def test_resuming_forgets_successes_of_sources() -> None:
    """Two of four sources still publish and both flood: that is every active source."""
    all_of_them = FloodGuards(FloodLimit(0.5, 40), Watcher())
    guard = all_of_them.of(TOOL_EXECUTED_QUEUE)
    known(guard, "a", "b", "c", "d")
    for number in range(40):
        passes(guard, delivery("abcd"[number % 4]))
    assert guard.flood is not None

    all_of_them.resume()
    passed = sum(passes(guard, delivery("ab"[number % 2])) for number in range(40))

    assert passed == 21


async def test_one_bad_message_of_each_source_stops_no_queue() -> None:
    """It says nothing of its publisher, however low the limit is set."""
    guard = FloodGuards(FloodLimit(0.02, 1000), Watcher()).of(TOOL_EXECUTED_QUEUE)
    names = [f"s{number}" for number in range(30)]
    known(guard, *names)

    assert all(passes(guard, delivery(name)) for name in names)
    assert guard.flood is None
