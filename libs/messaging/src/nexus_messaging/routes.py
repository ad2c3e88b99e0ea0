"""Handlers of single events as FastStream's users write them: decorated functions of one event.

FastStream registers them, has the message read into their argument, and calls them. It receives
nothing itself: this project's own consumer does, and feeds it, because FastStream's subscription
drops what arrives while it stops, and knows no pause for an outage.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, get_type_hints

from faststream import AckPolicy
from faststream.rabbit import RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue

from nexus_contracts import Event, EventData, read_event
from nexus_messaging.consumption import Handler
from nexus_messaging.message import Delivery
from nexus_messaging.retry import Outcome

DataT = TypeVar("DataT", bound=EventData)

NEVER_CONNECTED: Final = "amqp://localhost"


class Routes:
    """The handlers of a service's queues."""

    def __init__(self) -> None:
        self._broker = RabbitBroker(NEVER_CONNECTED, logger=None)
        self._broker._setup_logger()  # noqa: SLF001 - its start does, before it connects

    def subscriber(
        self, queue: str
    ) -> Callable[[Callable[[Event[DataT]], Awaitable[Outcome]]], Handler]:
        """Make a handler of ``queue`` out of a function, whose annotation says what it takes.

        The handler raises what the function raises, and ContractError for another message.
        """

        def register(function: Callable[[Event[DataT]], Awaitable[Outcome]]) -> Handler:
            subscriber = self._broker.subscriber(
                RabbitQueue(queue, declare=False),
                RabbitExchange(declare=False),
                parser=_parse,
                decoder=_decoder(_data_type(function)),
                ack_policy=AckPolicy.MANUAL,
                no_reply=True,  # or a publisher's reply_to would make us publish
            )
            subscriber(function)
            subscriber._build_fastdepends_model()  # noqa: SLF001 - its start does, before it subscribes

            async def handle(delivery: Delivery) -> Outcome:
                response = await subscriber.process_message(delivery)  # type: ignore[arg-type] # see _parse
                outcome: Outcome = response.body
                return outcome

            return handle

        return register


async def _parse(delivery: Any) -> RabbitMessage:
    message = delivery.message
    return RabbitMessage(delivery, message.body, message_id=message.message_id)


def _decoder(kind: type[EventData]) -> Callable[[RabbitMessage], Awaitable[Event[EventData]]]:
    async def decode(message: RabbitMessage) -> Event[EventData]:
        return read_event(message.body, [kind])

    return decode


def _data_type(function: Callable[..., object]) -> type[EventData]:
    event = next(iter(get_type_hints(function).values()))
    kind: type[EventData] = event.model_fields["data"].annotation
    return kind
