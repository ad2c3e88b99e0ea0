"""All channels as AsyncAPI 3.0 says it, from the topology, the contracts and the handlers."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from channels import OUTSIDE, SUBSCRIBERS, Channel, channels

from nexus_contracts import CONTENT_TYPE
from nexus_contracts.schemas import schema_of
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import DeadLetter
from nexus_messaging.router import Router
from nexus_messaging.topology import UNROUTABLE, VHOST, WORK_QUEUES, dead_letter_queue

VERSION: Final = "1"
"""Of the contracts: a release's would change the page without a change of what it says."""

BINDING: Final = "0.3.0"
"""Of AMQP in AsyncAPI: https://github.com/asyncapi/bindings/tree/master/amqp."""

ABOUT: Final = """\
Tool runs become meter events at Stripe. Publishers send to the exchange `events`, this project's
services to `internal`; each event reaches one queue with one consumer. A message that can never
succeed goes to the queue's `.dlq` with its reason. An event of the exchange `notices` reaches the
queues that are bound to it, if there are any. docs/events.md has the same for reading."""

DEAD_LETTER: Final = {
    "nexus-reason": "Why it can't succeed: " + ", ".join(Reason) + ".",
    "nexus-error": "The fields and their rules, or the error, without any value.",
    "nexus-attempts": "Attempts before it was given up.",
    "nexus-first-failed-at": "When the first attempt failed.",
    "nexus-failed-at": "When it was given up.",
    "nexus-service": "The service that gave it up.",
    "nexus-requeue-to": "The queue to move it to once the cause is gone.",
}

Part = dict[str, Any]


def asyncapi_page(routers: Mapping[str, Router]) -> Iterator[str]:
    """Yield the lines of the document."""
    ways = list(channels(routers))
    document: Part = {
        "asyncapi": "3.0.0",
        "info": {"title": "Nexus metering", "version": VERSION, "description": ABOUT},
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "broker": {
                "host": "broker:5672",
                "pathname": f"/{VHOST}",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ. `AMQP_URL` has its address.",
            }
        },
        "channels": {**_exchange_channels(ways), **_queue_channels(ways), **_kept_channels()},
        "operations": {**_sending(ways), **_receiving(ways)},
        "components": {
            "messages": {way.data.TYPE: _message(way) for way in ways} | {"dead-letter": _dead()},
            "schemas": dict(schema for way in ways for schema in _schemas(way)),
        },
    }
    yield json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)


def _exchange_channels(ways: list[Channel]) -> Part:
    return {
        _exchange_channel(exchange, way): {
            "address": way.data.TYPE,
            "description": f"The exchange `{exchange}`; the address is the routing key.",
            "messages": _messages(way.data.TYPE),
            "bindings": _amqp(
                {
                    "is": "routingKey",
                    "exchange": {
                        "name": exchange,
                        "type": "topic",
                        "durable": True,
                        "autoDelete": False,
                        "vhost": f"/{VHOST}",
                    },
                }
            ),
        }
        for way in ways
        for exchange in way.senders
    }


def _queue_channels(ways: list[Channel]) -> Part:
    return {
        queue: _queue(
            queue,
            f"Consumed by {queue.partition('.')[0]}.",
            *(way.data.TYPE for way in ways if way.queue == queue),
        )
        for queue in WORK_QUEUES
    }


def _kept_channels() -> Part:
    dead = {
        dead_letter_queue(queue): _queue(
            dead_letter_queue(queue), f"Dead letters of {queue}, for an operator.", "dead-letter"
        )
        for queue in WORK_QUEUES
    }
    unroutable = "Messages to `events` of a type that no queue takes, and returns without a queue."
    return dead | {UNROUTABLE: _queue(UNROUTABLE, unroutable)}


def _queue(name: str, description: str, *messages: str) -> Part:
    queue = {
        "name": name,
        "durable": True,
        "exclusive": False,
        "autoDelete": False,
        "vhost": f"/{VHOST}",
    }
    return {
        "address": name,
        "description": description,
        "messages": _messages(*messages),
        "bindings": _amqp({"is": "queue", "queue": queue}),
    }


def _sending(ways: list[Channel]) -> Part:
    return {
        f"{sender}.sends.{way.data.TYPE}": {
            "action": "send",
            "title": f"{_called(sender)} publishes {way.data.TYPE}",
            **_uses(_exchange_channel(exchange, way), way),
            "bindings": _amqp({"deliveryMode": 2, "mandatory": way.consumer != SUBSCRIBERS}),
        }
        for way in ways
        for exchange, senders in way.senders.items()
        for sender in senders
    }


def _receiving(ways: list[Channel]) -> Part:
    return {
        f"{way.consumer}.receives.{way.data.TYPE}": {
            "action": "receive",
            "title": f"{way.consumer} consumes {way.data.TYPE}",
            "description": way.handling,
            **_uses(way.queue, way),
            "bindings": _amqp({"ack": True}),
        }
        for way in ways
        if way.consumer != SUBSCRIBERS
    }


def _uses(channel: str, way: Channel) -> Part:
    channel = f"#/channels/{channel}"
    return {
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{way.data.TYPE}"}],
    }


def _message(way: Channel) -> Part:
    return {
        "name": way.data.TYPE,
        "title": way.data.TYPE,
        "summary": " ".join((way.data.__doc__ or "").split()),
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{way.data.TYPE}"},
        "examples": [{"name": "golden", "payload": way.example}],
        "bindings": _amqp({"messageType": way.data.TYPE}),
    }


def _dead() -> Part:
    past = datetime.fromtimestamp(0, UTC)
    letter = DeadLetter(Reason.INVALID, detail="", attempts=1, first_failed_at=past)
    headers = letter.headers(service="", requeue_to="", now=past)
    return {
        "name": "dead-letter",
        "title": "A message that can't succeed",
        "summary": "The bytes as they were published, with headers that say why they are here.",
        "headers": {
            "type": "object",
            "properties": {
                name: {
                    "type": "integer" if isinstance(value, int) else "string",
                    "description": DEAD_LETTER[name],
                }
                for name, value in headers.items()
            },
        },
    }


def _schemas(way: Channel) -> Iterator[tuple[str, Part]]:
    text = json.dumps(schema_of(way.data)).replace("#/$defs/", "#/components/schemas/")
    schema: Part = json.loads(text)
    del schema["$schema"]  # AsyncAPI's own schema objects are JSON Schemas, and name no dialect
    yield from schema.pop("$defs").items()
    yield way.data.TYPE, schema


def _messages(*names: str) -> Part:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _amqp(binding: Part) -> Part:
    return {"amqp": {**binding, "bindingVersion": BINDING}}


def _exchange_channel(exchange: str, way: Channel) -> str:
    return f"{exchange}.{way.data.TYPE}"


def _called(sender: str) -> str:
    return "a service outside" if sender == OUTSIDE else sender
