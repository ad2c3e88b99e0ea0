"""Events of ours on their way to the broker, each as a step of its trace."""

from opentelemetry.trace import SpanKind

from nexus_contracts import Event, EventData
from nexus_messaging import tracing
from nexus_messaging.errors import PublishError
from nexus_messaging.message import Message
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.topology import INTERNAL


class Sending:
    """An event to publish to `internal`; its span begins here and ends with the broker's answer.

    It is a child of the span that ``follows`` names, else of the current one. While tracing is on,
    the event carries the context of this span, and so whatever comes of the event is its child.
    """

    def __init__(
        self, event: Event[EventData], *, follows: str | None = None, link: str | None = None
    ) -> None:
        destination = f"{INTERNAL}:{event.type}"
        self._span = tracing.begun(
            f"publish {destination}",
            SpanKind.PRODUCER,
            {
                "messaging.system": "rabbitmq",
                "messaging.operation.type": "send",
                "messaging.operation.name": "publish",
                "messaging.destination.name": destination,
                "messaging.rabbitmq.destination.routing_key": event.type,
                "messaging.message.id": str(event.id),
            },
            context=None if follows is None else tracing.following(follows),
            links={} if link is None else {link: tracing.NOTHING},
        )
        if context := tracing.carried(self._span):
            event = event.model_copy(update={"traceparent": context})
        self.publication = Publication(INTERNAL, event.type, Message.of(event))

    def ended(self, error: PublishError | None) -> None:
        """End the span with what came of publishing."""
        if error is not None:
            tracing.fail(self._span, type(error).__name__)
        self._span.end()


async def send(
    publisher: Publisher, event: Event[EventData], *, follows: str | None = None
) -> None:
    """Publish one event and wait for the broker's confirm.

    Raises:
        PublishError: not confirmed; it may arrive all the same.
    """
    sending = Sending(event, follows=follows)
    failure = None
    try:
        await publisher.publish(sending.publication)
    except PublishError as error:
        failure = error
        raise
    finally:
        sending.ended(failure)
