"""Splitting a batch so that each message that may crash its consumer is alone."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.batches import isolate_suspects
from nexus_messaging.message import Message
from nexus_messaging.properties import Properties
from nexus_messaging.received import Received
from nexus_messaging.retry import HANDLED_ALONE_FROM
from support.deliveries import delivery


def received(tag: int, returned: int) -> Received:
    """Return a delivery that the broker counted ``returned`` times."""
    properties = Properties(headers={"x-delivery-count": returned})
    channel = cast("Any", None)
    return Received(channel, tag, "queue", "events", b"", properties, redelivered=True)


@given(st.lists(st.integers(0, 2 * HANDLED_ALONE_FROM), max_size=30))
def test_suspects_are_isolated_in_order(counts: list[int]) -> None:
    """Acks are cumulative, so no delivery may be skipped or change places."""
    batch = [received(tag, returned) for tag, returned in enumerate(counts)]

    split = isolate_suspects(batch)

    assert [each for group in split for each in group] == batch
    assert all(split)
    suspects = [len(g) for g in split for each in g if each.returned >= HANDLED_ALONE_FROM]
    assert set(suspects) <= {1}


@given(st.lists(st.integers(0, HANDLED_ALONE_FROM - 1), min_size=1, max_size=30))
def test_a_batch_without_suspects_stays_whole(counts: list[int]) -> None:
    """Lost connections alone must not turn batches into single deliveries."""
    assert (
        len(isolate_suspects([received(tag, returned) for tag, returned in enumerate(counts)])) == 1
    )


@given(st.dictionaries(st.just("x-delivery-count"), st.none() | st.integers() | st.text()))
def test_invalid_delivery_count_is_read_as_zero(headers: dict[str, object]) -> None:
    """Only a number counts, and only on a redelivery."""
    count = headers.get("x-delivery-count")

    first = delivery(Message(b""), "queue", headers=headers)
    again = delivery(Message(b""), "queue", headers=headers, redelivered=True)

    assert again.returned == (count if isinstance(count, int) else 0)
    assert first.returned == 0
