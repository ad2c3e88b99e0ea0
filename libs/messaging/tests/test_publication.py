"""The frames of a publication: the bytes that pamqp writes."""

from datetime import UTC, datetime

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from nexus_messaging.message import Message
from nexus_messaging.publication import Publication

MAX_FRAME_BYTES = 4096
CHANNEL = 3

texts = st.text(max_size=50)
messages = st.builds(
    Message,
    body=st.binary(max_size=12).map(lambda some: some * 1000),
    message_id=st.none() | texts,
    type=st.none() | texts,
    content_type=st.none() | texts,
    content_encoding=st.none() | texts,
    timestamp=st.none() | st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    headers=st.dictionaries(texts, texts | st.integers(-(2**63), 2**63 - 1), max_size=3),
)


@given(messages, st.sampled_from(["", "internal", "nexus.retry"]), texts)
def test_frames_are_those_of_pamqp(message: Message, exchange: str, key: str) -> None:
    """Method, properties, and the body in parts of the size that the broker takes."""
    frames = b"".join(Publication(exchange, key, message).frames(CHANNEL, MAX_FRAME_BYTES))

    properties = Basic.Properties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=dict(message.headers) or None,
        delivery_mode=2,
        message_id=message.message_id,
        timestamp=message.timestamp,
        message_type=message.type,
    )
    parts = [
        message.body[at : at + MAX_FRAME_BYTES]
        for at in range(0, len(message.body), MAX_FRAME_BYTES)
    ]
    expected: list[Basic.Publish | ContentHeader | ContentBody] = [
        Basic.Publish(exchange=exchange, routing_key=key, mandatory=True),
        ContentHeader(body_size=len(message.body), properties=properties),
        *(ContentBody(part) for part in parts),
    ]
    assert frames == b"".join(pamqp.frame.marshal(each, CHANNEL) for each in expected)


def test_value_too_long_for_its_field_is_an_error() -> None:
    """It must not become another value."""
    for message in (Message(b"", message_id="x" * 256), Message(b"", headers={"x": 2**64})):
        with pytest.raises((OverflowError, TypeError)):
            list(Publication("internal", "x", message).frames(CHANNEL, MAX_FRAME_BYTES))


def test_properties_larger_than_a_frame_are_an_error() -> None:
    """The broker would close the connection, and all that is published with it would fail."""
    message = Message(b"", headers={"x": "y" * 1000})
    whole = sum(map(len, Publication("internal", "x", message).frames(CHANNEL, 2000)))
    assert whole > 1000

    with pytest.raises(ValueError, match="larger than a frame"):
        list(Publication("internal", "x", message).frames(CHANNEL, 1000))
