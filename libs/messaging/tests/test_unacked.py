"""Acks: the fewest frames, and none for an unsettled delivery."""

from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.unacked import Ack, UnackedDeliveries


def of(*tags: int) -> UnackedDeliveries:
    """Return deliveries of 10 bytes each."""
    unacked = UnackedDeliveries()
    for tag in tags:
        unacked.add(tag, 10)
    return unacked


def test_all_settled_deliveries_are_acked_with_one_frame() -> None:
    """One ack with ``multiple`` covers all of them."""
    unacked = of(1, 2, 3)

    unacked.settle([3, 1, 2])

    assert unacked.acks() == [Ack(3, multiple=True)]
    assert (len(unacked), unacked.bytes) == (0, 0)


def test_unsettled_delivery_is_not_acked_with_later_ones() -> None:
    """Deliveries after the oldest unsettled one are acked one by one."""
    unacked = of(1, 2, 3, 4, 5)

    unacked.settle([1, 2, 4])

    assert unacked.acks() == [Ack(2, multiple=True), Ack(4, multiple=False)]
    assert (len(unacked), unacked.bytes) == (2, 20)


def test_postponed_acks_are_sent_as_one_frame() -> None:
    """Settled deliveries take no memory, though they still count for the broker's prefetch."""
    unacked = of(1, 2, 3)

    unacked.settle([1])
    unacked.settle([2])
    assert (len(unacked), unacked.bytes) == (3, 10)
    unacked.settle([3])

    assert unacked.acks() == [Ack(3, multiple=True)]
    assert unacked.acks() == []


def test_a_delivery_settled_twice_is_acked_once() -> None:
    """A second ack of one tag would close the channel."""
    unacked = of(1)

    unacked.settle([1])
    assert unacked.acks() == [Ack(1, multiple=True)]
    unacked.settle([1])

    assert unacked.acks() == []


def test_rejected_delivery_is_not_acked_with_later_ones() -> None:
    """An ack that includes it would lose it instead of dead-lettering it."""
    unacked = of(1, 2, 3)

    unacked.settle([1, 3])
    assert unacked.acks() == [Ack(1, multiple=True), Ack(3, multiple=False)]
    unacked.forget(2)

    assert unacked.acks() == []
    assert (len(unacked), unacked.bytes) == (0, 0)


@given(st.lists(st.lists(st.integers(1, 30), max_size=10), max_size=10))
def test_acks_cover_exactly_what_was_settled(groups: list[list[int]]) -> None:
    """In any order of settlement, an unsettled delivery is never acked."""
    unacked, acked, settled = of(*range(1, 31)), set[int](), set[int]()

    for group in groups:
        unacked.settle(group)
        settled |= set(group)
        for ack in unacked.acks():
            acked |= set(range(1, ack.tag + 1)) if ack.multiple else {ack.tag}

        assert acked == settled
