"""Acks: as few frames as can be, and none for a delivery that is still at work."""

from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.in_hand import Ack, InHand


def of(*tags: int) -> InHand:
    """Return deliveries of 10 bytes each."""
    hand = InHand()
    for tag in tags:
        hand.add(tag, 10)
    return hand


def test_everything_in_hand_is_acked_with_one_frame() -> None:
    """Of what is in hand, nothing older is left out."""
    hand = of(1, 2, 3)

    hand.settle([3, 1, 2])

    assert hand.acks() == [Ack(3, multiple=True)]
    assert (len(hand), hand.bytes) == (0, 0)


def test_a_delivery_at_work_is_not_acked_with_younger_ones() -> None:
    """What is younger than the oldest one at work is acked by itself."""
    hand = of(1, 2, 3, 4, 5)

    hand.settle([1, 2, 4])

    assert hand.acks() == [Ack(2, multiple=True), Ack(4, multiple=False)]
    assert (len(hand), hand.bytes) == (2, 20)


def test_acks_that_rest_are_sent_together_later() -> None:
    """Settled deliveries take no memory, though they still count for the broker's prefetch."""
    hand = of(1, 2, 3)

    hand.settle([1])
    hand.settle([2])
    assert (len(hand), hand.bytes) == (3, 10)
    hand.settle([3])

    assert hand.acks() == [Ack(3, multiple=True)]
    assert hand.acks() == []


def test_a_delivery_settled_twice_is_acked_once() -> None:
    """A second ack of one tag would close the channel."""
    hand = of(1)

    hand.settle([1])
    assert hand.acks() == [Ack(1, multiple=True)]
    hand.settle([1])

    assert hand.acks() == []


@given(st.lists(st.lists(st.integers(1, 30), max_size=10), max_size=10))
def test_acks_cover_exactly_what_was_settled(groups: list[list[int]]) -> None:
    """Whatever ends in which order, the broker is never asked to forget what is at work."""
    hand, acked, settled = of(*range(1, 31)), set[int](), set[int]()

    for group in groups:
        hand.settle(group)
        settled |= set(group)
        for ack in hand.acks():
            acked |= set(range(1, ack.tag + 1)) if ack.multiple else {ack.tag}

        assert acked == settled
