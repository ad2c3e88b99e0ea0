"""What this project needs of FastStream: it registers handlers, reads for them, and calls them."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from nexus_contracts import Event, InvalidEventError, UnreadableError, UserCreated
from nexus_messaging.errors import TransientError
from nexus_messaging.message import Delivery, Message
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.routes import Routes

QUEUE = "customer-provisioner.user-created"


def delivery() -> Delivery:
    """Return the delivery of a user."""
    user = UserCreated(user_id=uuid4(), email="ada@example.com", name="Ada")
    event = Event.of(user, source="test", id=uuid4(), time=datetime.now(UTC))
    return Delivery(Message.of(event), QUEUE, "events")


async def test_a_handler_gets_the_event_it_is_annotated_with() -> None:
    """Its outcome is what the consumption settles by."""
    handled = []

    @Routes().subscriber(QUEUE)
    async def keep(event: Event[UserCreated]) -> Outcome:
        handled.append(event)
        return Done()

    outcome = await keep(delivery())

    assert outcome == Done()
    assert [(event.source, event.data.name) for event in handled] == [("test", "Ada")]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", UnreadableError),
        (b'{"specversion": "1.0", "type": "usage.rejected.v1"}', InvalidEventError),
    ],
)
async def test_a_message_that_breaks_the_contract_is_told_by_its_error(
    body: bytes, error: type[Exception]
) -> None:
    """FastStream neither swallows it nor puts one of its own in its place."""

    @Routes().subscriber(QUEUE)
    async def keep(_event: Event[UserCreated]) -> Outcome:
        return Done()

    broken = delivery()
    with pytest.raises(error):
        await keep(replace(broken, message=replace(broken.message, body=body)))


async def test_what_a_handler_raises_reaches_the_consumption() -> None:
    """Otherwise a failure would be acked."""

    @Routes().subscriber(QUEUE)
    async def keep(_event: Event[UserCreated]) -> Outcome:
        raise TransientError("later")

    with pytest.raises(TransientError, match="later"):
        await keep(delivery())
