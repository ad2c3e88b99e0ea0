"""The memory: bounded by bytes, in order."""

import tracemalloc
from uuid import uuid4

from nexus_publisher.entries import Entry
from nexus_publisher.memory import Memory

MIB = 1024 * 1024


def entry(size: int = 400, event_type: str = "tool.executed.v1") -> Entry:
    """Return an event of ``size`` bytes."""
    return Entry(uuid4(), event_type, bytes(size), recorded_at=1.0)


def test_memory_is_bounded_whatever_the_size_of_events() -> None:
    """What Python really takes for them stays within the limit."""
    for size in (300, 200_000):
        memory = Memory(2 * MIB)
        tracemalloc.start()

        while memory.add(entry(size)):
            pass

        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert MIB < taken <= 2 * MIB


def test_room_is_made_by_what_is_removed() -> None:
    """Full is no final state."""
    memory = Memory(5_000)
    while memory.add(entry()):
        pass
    [first, *_] = memory.read(None, 1, MIB)

    memory.remove([first])

    assert memory.add(entry())
    assert not memory.add(entry())


def test_oldest_events_come_first_and_in_portions() -> None:
    """By type, up to a number and a size; one event alone may be larger."""
    memory = Memory(MIB)
    runs = [entry(100), entry(100), entry(100)]
    user = entry(5_000, "user.created.v1")
    for each in (runs[0], user, *runs[1:]):
        memory.add(each)

    assert memory.types() == ["tool.executed.v1", "user.created.v1"]
    assert memory.read("tool.executed.v1", 2, MIB) == runs[:2]
    assert memory.read("tool.executed.v1", 9, 250) == runs[:2]
    assert memory.read("user.created.v1", 9, 250) == [user]


def test_closed_memory_takes_no_event_and_returns_the_rest() -> None:
    """They are reported as lost by whoever closes."""
    memory = Memory(MIB)
    kept = entry()
    memory.add(kept)

    assert memory.close() == [kept]
    assert not memory.add(entry())
    assert memory.closed
