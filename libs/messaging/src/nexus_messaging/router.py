"""Registers a service's handlers by queue, with decorators as in FastStream.

FastStream decodes a message into the argument of a handler for single events and calls it. It
consumes nothing: this project's own consumer passes messages to it, because a FastStream subscriber
drops messages that arrive while it stops, and cannot pause during an outage. Arguments marked with
``Context()`` are resolved here once; FastStream would do so for each message, in a thread
(docs/decisions/0017).
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_type_hints

from faststream import AckPolicy
from faststream.rabbit import RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue

from nexus_contracts import Event, EventData, read_event
from nexus_messaging.message import Delivery
from nexus_messaging.pipeline import BatchHandler
from nexus_messaging.retry import Outcome
from nexus_messaging.singles import Handler

NEVER_CONNECTED: Final = "amqp://localhost"

FunctionT = TypeVar("FunctionT", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True)
class Route:
    """A queue and the function that handles what it delivers: the data of these ``events``.

    ``prefetch``: unacked deliveries at most. ``max_size``: deliveries of a batch at most, ``None``
    for a handler of single events.
    """

    queue: str
    function: Callable[..., Awaitable[Any]]
    prefetch: int
    max_size: int | None = None
    events: tuple[type[EventData], ...] = ()


@dataclass(frozen=True, slots=True)
class Router:
    """The queues that a service consumes and their functions; it makes no connection."""

    routes: list[Route] = field(default_factory=list)

    def subscriber(self, queue: str, *, prefetch: int) -> Callable[[FunctionT], FunctionT]:
        """Register a handler of single events; the annotation of its first argument is their type.

        For several versions it is a union: ``Event[UserCreatedV1] | Event[UserCreatedV2]``. Further
        arguments are marked with FastStream's ``Context()`` and given by name. What the function
        returns or raises decides what follows for the message; a body that breaks the contract
        never reaches it.
        """

        def register(function: FunctionT) -> FunctionT:
            events = _data_of(function)
            self.routes.append(Route(queue, function, prefetch, events=events))
            return function

        return register

    def batch_subscriber(
        self, queue: str, *events: type[EventData], prefetch: int, max_size: int = 500
    ) -> Callable[[FunctionT], FunctionT]:
        """Register a handler of up to ``max_size`` deliveries, which reads ``events`` from them."""

        def register(function: FunctionT) -> FunctionT:
            self.routes.append(Route(queue, function, prefetch, max_size, events))
            return function

        return register


class Handlers:
    """The functions of a router, ready to be called with deliveries.

    ``provided`` has, by the name of the argument, what functions are given beside their events.
    A function that needs more raises LookupError here, not when its first message arrives.
    """

    def __init__(self, provided: Mapping[str, Any]) -> None:
        self._provided = provided
        # No apply_types: the decoder validates an event, and FastDepends would do so again.
        self._broker = RabbitBroker(NEVER_CONNECTED, logger=None, apply_types=False)
        self._broker._setup_logger()  # noqa: SLF001 - its start does, before it connects

    def single(self, route: Route) -> Handler:
        """Return a handler that raises what the function raises, and ContractError."""
        arguments = self._resolve_arguments(route.function)

        async def call(event: Any) -> Any:
            return await route.function(event, **arguments)

        call.__annotations__["event"] = _event_of(route.function)
        subscriber = self._broker.subscriber(
            RabbitQueue(route.queue, declare=False),
            RabbitExchange(declare=False),
            parser=_parse,
            decoder=_decoder(route.events),
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,  # or a publisher's reply_to would make us publish
        )
        subscriber(call)
        subscriber._build_fastdepends_model()  # noqa: SLF001 - its start does, before it subscribes

        async def handle(delivery: Delivery) -> Outcome:
            response = await subscriber.process_message(delivery)  # type: ignore[arg-type] # see _parse
            outcome: Outcome = response.body
            return outcome

        return handle

    def batch(self, route: Route) -> BatchHandler:
        """Return the function with its further arguments filled in."""
        arguments = self._resolve_arguments(route.function)

        async def handle(batch: Sequence[Delivery]) -> Sequence[Outcome]:
            outcomes: Sequence[Outcome] = await route.function(batch, **arguments)
            return outcomes

        return handle

    def _resolve_arguments(self, function: Callable[..., Any]) -> dict[str, Any]:
        _event, *names = inspect.signature(function).parameters
        if missing := set(names) - self._provided.keys():
            raise LookupError(f"{function.__name__} is not given {', '.join(sorted(missing))}")
        return {name: self._provided[name] for name in names}


async def _parse(delivery: Any) -> RabbitMessage:
    message = delivery.message
    return RabbitMessage(delivery, message.body, message_id=message.message_id)


def _decoder(
    events: Sequence[type[EventData]],
) -> Callable[[RabbitMessage], Awaitable[Event[EventData]]]:
    async def decode(message: RabbitMessage) -> Event[EventData]:
        return read_event(message.body, events)

    return decode


def _event_of(function: Callable[..., object]) -> Any:
    return next(iter(get_type_hints(function).values()))


def _data_of(function: Callable[..., object]) -> tuple[type[EventData], ...]:
    event = _event_of(function)
    kinds = get_args(event) if isinstance(event, UnionType) else (event,)
    return tuple(kind.model_fields["data"].annotation for kind in kinds)
