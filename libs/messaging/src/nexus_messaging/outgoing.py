"""Publishing events to the exchanges `internal` and `notices`, each with a span."""

from collections.abc import Sequence

from opentelemetry.trace import SpanKind

from nexus_contracts import Event, EventData
from nexus_messaging import tracing
from nexus_messaging.errors import PublishError
from nexus_messaging.message import Message
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.topology import INTERNAL, NOTICES


class OutgoingEvent:
    """An event to publish, and its span, which lasts until the broker's answer.

    It goes to `internal`, where a queue must take it, or as a ``notice`` to `notices`, where none
    need. The span is a child of the traceparent ``parent``, or of the current span without one.
    While tracing is on, the event carries the context of this span, so its processing is a child
    span.
    """

    def __init__(
        self,
        event: Event[EventData],
        *,
        parent: str | None = None,
        link: str | None = None,
        notice: bool = False,
    ) -> None:
        exchange = NOTICES if notice else INTERNAL
        destination = f"{exchange}:{event.type}"
        self._span = tracing.start_span(
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
            context=None if parent is None else tracing.parent_context(parent),
            links={} if link is None else {link: tracing.NO_ATTRIBUTES},
        )
        if context := tracing.span_traceparent(self._span):
            event = event.model_copy(update={"traceparent": context})
        self.publication = Publication(
            exchange, event.type, Message.of(event), mandatory=not notice
        )

    def end(self, error: PublishError | None) -> None:
        """End the span; ``error`` is the failure of publishing, if it failed."""
        if error is not None:
            tracing.mark_failed(self._span, type(error).__name__)
        self._span.end()


async def send_all(
    publisher: Publisher, sendings: Sequence[OutgoingEvent]
) -> list[PublishError | None]:
    """Publish events in one write and wait for all confirms; return each event's failure."""
    errors = await publisher.publish_all([each.publication for each in sendings])
    for sending, error in zip(sendings, errors, strict=True):
        sending.end(error)
    return errors


async def send(publisher: Publisher, event: Event[EventData], *, parent: str | None = None) -> None:
    """Publish one event and wait for the broker's confirm.

    Raises:
        PublishError: not confirmed; the event may still arrive.
    """
    outgoing = OutgoingEvent(event, parent=parent)
    failure = None
    try:
        await publisher.publish(outgoing.publication)
    except PublishError as error:
        failure = error
        raise
    finally:
        outgoing.end(failure)
