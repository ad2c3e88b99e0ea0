"""Publish user.created, then tool.executed, with aio-pika.

AMQP_URL=amqp://publisher:…@localhost/metering USER_ID=<a UUID> python publish_aio_pika.py
"""

import asyncio
import json
import logging
import os
import random
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import aio_pika

ATTEMPT_SECONDS = 5  # a broker in alarm neither confirms nor refuses
LIMIT_SECONDS = int(os.environ.get("LIMIT_SECONDS", "30"))
# No repetition helps: the type, the password, the size or the vhost is wrong.
REFUSED = ("ACCESS_REFUSED", "PRECONDITION_FAILED", "Connection.OpenOk")


class Publisher:
    """Publishes on one connection, which is opened when it is needed and again after a fault."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._exchange: Any = None
        self._turn = asyncio.Lock()  # one event at a time: a refusal closes the channel for all

    async def publish(self, event: dict[str, Any]) -> str:
        """Return "confirmed", or why not: then keep the event, and publish it later with its id."""
        try:
            body = json.dumps(event).encode()  # each time the same bytes with the same id
        except (TypeError, ValueError) as error:
            return f"refused: {error}"
        message = aio_pika.Message(
            body,
            content_type="application/cloudevents+json",
            message_id=event["id"],
            type=event["type"],
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        end, pause = time.monotonic() + LIMIT_SECONDS, 0.25
        while True:
            try:
                async with self._turn, asyncio.timeout(ATTEMPT_SECONDS):
                    await self._attempt(message, event["type"])
                return "confirmed"
            except (Exception, asyncio.CancelledError) as error:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise  # otherwise it is the driver's own, about a connection that got stuck
                why = str(error) or type(error).__name__
            if any(each in why for each in REFUSED):
                return f"refused: {why}"
            if time.monotonic() + pause > end:
                return f"not confirmed in {LIMIT_SECONDS} s: {why}"
            print(f"{event['type']} {event['id']}: {why}; again in {pause} s", file=sys.stderr)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 8)

    async def _attempt(self, message: aio_pika.Message, key: str) -> None:
        try:
            if self._exchange is None:
                self._connection = await aio_pika.connect(self._url)
                channel = await self._connection.channel(on_return_raises=True)
                self._exchange = await channel.get_exchange("events", ensure=False)
            await self._exchange.publish(message, key, mandatory=True)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection, in a second at most."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            closing = asyncio.gather(connection.close(), return_exceptions=True)
            await asyncio.wait([closing], timeout=1)


def new_event(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """Make an event: when the run ends; keep it until it is confirmed."""
    now = datetime.now(UTC).isoformat()
    envelope = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "hub"}
    return {**envelope, "type": kind, "time": now, "data": data}


async def main() -> int:
    """Publish a user and a run of theirs; return the exit code."""
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # the outcome says it in a line
    user = {"user_id": os.environ["USER_ID"]}
    run = {"server_id": "weather", "tool_name": "forecast", "origin": "hub", "status": "succeeded"}
    publisher, code = Publisher(os.environ["AMQP_URL"]), 0
    for event in (
        new_event("user.created.v1", user | {"email": "ada@example.com", "name": "Ada Lovelace"}),
        new_event("tool.executed.v1", user | run),
    ):
        outcome = await publisher.publish(event)
        print(f"{event['type']} {event['id']}: {outcome}")
        code |= outcome != "confirmed"
    await publisher.close()
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
