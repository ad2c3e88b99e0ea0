"""What this project needs of FastStream: it registers handlers, reads for them, and calls them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

import pytest
from faststream import Context

from nexus_contracts import (
    Event,
    InvalidEventError,
    UnreadableError,
    UnsupportedVersionError,
    UserCreated,
    UserCreatedV1,
    UserCreatedV2,
)
from nexus_messaging.errors import TransientError
from nexus_messaging.message import Delivery, Message
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.router import Handlers, Router
from nexus_messaging.singles import Handler
from support import deliveries

QUEUE = "customer-provisioner.user-created"


def delivery(user: UserCreated | UserCreatedV2 | None = None) -> Delivery:
    """Return the delivery of a user."""
    user = user or UserCreated(user_id=uuid4(), email="ada@example.com", name="Ada")
    event = Event.of(user, source="test", id=uuid4(), time=datetime.now(UTC))
    return deliveries.delivery(Message.of(event), QUEUE)


def handler_of(router: Router, **provided: object) -> Handler:
    """Return the only handler of ``router``."""
    [route] = router.routes
    return Handlers(provided).single(route)


async def test_a_handler_gets_the_event_it_is_annotated_with() -> None:
    """Its outcome is what the consumption settles by."""
    router, handled = Router(), []

    @router.subscriber(QUEUE, prefetch=1)
    async def keep(event: Event[UserCreated]) -> Outcome:
        handled.append(event)
        return Done()

    outcome = await handler_of(router)(delivery())

    assert outcome == Done()
    assert [(event.source, event.data.name) for event in handled] == [("test", "Ada")]


async def test_a_handler_of_two_versions_gets_each_as_it_is() -> None:
    """And a handler of one refuses the other."""
    router, single, handled = Router(), Router(), []

    @router.subscriber(QUEUE, prefetch=1)
    async def keep(event: Event[UserCreatedV1] | Event[UserCreatedV2]) -> Outcome:
        handled.append(event.data)
        return Done()

    @single.subscriber(QUEUE, prefetch=1)
    async def keep_one(event: Event[UserCreatedV1]) -> Outcome:
        return Done(event.source)

    one = UserCreatedV1(user_id=uuid4(), email="ada@example.com")
    two = UserCreatedV2(user_id=uuid4(), stripe_customer_id="cus_1")
    for data in (one, two):
        await handler_of(router)(delivery(data))

    assert handled == [one, two]
    assert [type(each) for each in handled] == [UserCreatedV1, UserCreatedV2]
    with pytest.raises(UnsupportedVersionError):
        await handler_of(single)(delivery(two))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", UnreadableError),
        (b'{"specversion": "1.0", "type": "usage.rejected.v1"}', InvalidEventError),
    ],
)
async def test_message_that_breaks_the_contract_raises_its_own_error(
    body: bytes, error: type[Exception]
) -> None:
    """FastStream neither swallows it nor puts one of its own in its place."""
    router = Router()

    @router.subscriber(QUEUE, prefetch=1)
    async def keep(_event: Event[UserCreated]) -> Outcome:
        return Done()

    with pytest.raises(error):
        await handler_of(router)(deliveries.delivery(Message(body), QUEUE))


async def test_error_of_a_handler_reaches_the_consumption() -> None:
    """Otherwise a failure would be acked."""
    router = Router()

    @router.subscriber(QUEUE, prefetch=1)
    async def keep(_event: Event[UserCreated]) -> Outcome:
        raise TransientError("later")

    with pytest.raises(TransientError, match="later"):
        await handler_of(router)(delivery())


async def test_handler_gets_its_context_arguments_by_name() -> None:
    """Two services of one process share a router and no part."""
    router = Router()

    @router.subscriber(QUEUE, prefetch=1)
    async def keep(_event: Event[UserCreated], kept: Annotated[list[str], Context()]) -> Outcome:
        kept.append("kept")
        return Done()

    one: list[str] = []
    two: list[str] = []
    await handler_of(router, kept=one)(delivery())
    await handler_of(router, kept=two)(delivery())

    assert (one, two) == (["kept"], ["kept"])


async def test_batch_handler_gets_deliveries_and_its_arguments() -> None:
    """It reads the messages itself, all of them at once."""
    router = Router()

    @router.batch_subscriber(QUEUE, UserCreated, prefetch=10, max_size=5)
    async def count(
        batch: Sequence[Delivery], sizes: Annotated[list[int], Context()]
    ) -> Sequence[Outcome]:
        sizes.append(len(batch))
        return [Done() for _ in batch]

    [route] = router.routes
    sizes: list[int] = []
    outcomes = await Handlers({"sizes": sizes}).batch(route)([delivery(), delivery()])

    assert (sizes, outcomes) == ([2], [Done(), Done()])
    assert (route.prefetch, route.max_size) == (10, 5)


def test_handler_with_a_missing_argument_fails_at_the_start() -> None:
    """Otherwise each of its messages would fail, and be dead-lettered after five attempts."""
    router = Router()

    @router.subscriber(QUEUE, prefetch=1)
    async def keep(_event: Event[UserCreated], kept: Annotated[list[str], Context()]) -> Outcome:
        raise AssertionError(kept)

    with pytest.raises(LookupError, match="keep is not given kept"):
        handler_of(router)
