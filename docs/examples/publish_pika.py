"""Publish user.created, then tool.executed, with pika.

AMQP_URL=amqp://publisher:…@localhost/metering USER_ID=<a UUID> python publish_pika.py
"""

import json
import os
import random
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pika

ATTEMPT_SECONDS = 5  # a broker in alarm neither confirms nor refuses
LIMIT_SECONDS = int(os.environ.get("LIMIT_SECONDS", "30"))
# No repetition helps: the type, the size, the password or the vhost is wrong.
REFUSED = ("ACCESS_REFUSED", "PRECONDITION_FAILED", "ProbableA")


class Publisher:
    """Publishes on one connection, which is opened when it is needed and again after a fault.

    Its loop runs during a publish alone. A BlockingConnection waits for confirms without a limit.
    """

    def __init__(self, url: str) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.socket_timeout = self._parameters.stack_timeout = ATTEMPT_SECONDS - 1
        self._connection: Any = None
        self._channel: Any = None
        self._outcome = ""
        self._turn = threading.Lock()  # a connection of pika is for one thread at a time

    def publish(self, event: dict[str, Any]) -> str:
        """Return "confirmed", or why not: then keep the event, and publish it later with its id."""
        try:
            body = json.dumps(event).encode()  # each time the same bytes with the same id
        except (TypeError, ValueError) as error:
            return f"refused: {error}"
        end, pause = time.monotonic() + LIMIT_SECONDS, 0.25
        while True:
            with self._turn:
                try:
                    why = self._attempt(body, event)
                except Exception as error:
                    why, self._channel = repr(error), None
            if why == "confirmed":
                return why
            if any(each in why for each in REFUSED):
                return f"refused: {why}"
            if time.monotonic() + pause > end:
                return f"not confirmed in {LIMIT_SECONDS} s: {why}"
            print(f"{event['type']} {event['id']}: {why}; again in {pause} s", file=sys.stderr)
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 8)

    def _attempt(self, body: bytes, event: dict[str, Any]) -> str:
        properties = pika.BasicProperties(
            content_type="application/cloudevents+json",
            message_id=event["id"],
            type=event["type"],
            delivery_mode=pika.DeliveryMode.Persistent,
        )

        def send(_: object = None) -> None:
            self._channel.basic_publish("events", event["type"], body, properties, mandatory=True)

        def opened(channel: Any) -> None:
            self._channel = channel
            channel.add_on_close_callback(self._failed)
            channel.add_on_return_callback(lambda *_: self._end("no queue takes this type"))
            channel.confirm_delivery(self._confirmed, send)

        if self._channel is None:
            self._connection = pika.SelectConnection(
                self._parameters,
                on_open_callback=lambda connection: connection.channel(on_open_callback=opened),
                on_open_error_callback=self._failed,
                on_close_callback=self._failed,
            )
        else:
            send()
        outcome = self._run(ATTEMPT_SECONDS)
        if outcome != "confirmed":
            self.close()
        return outcome

    def _confirmed(self, frame: Any) -> None:
        stored = isinstance(frame.method, pika.spec.Basic.Ack)
        self._end("confirmed" if stored else "the broker did not store it")

    def _failed(self, _: object, error: BaseException) -> None:
        self._channel = None
        self._end(repr(error))

    def _end(self, outcome: str) -> None:
        self._outcome = self._outcome or outcome
        self._connection.ioloop.stop()

    def _run(self, seconds: float) -> str:
        self._outcome = ""
        loop = self._connection.ioloop
        timer = loop.call_later(seconds, lambda: self._end("no answer in time"))
        loop.start()
        loop.remove_timeout(timer)
        return self._outcome

    def close(self) -> None:
        """Close the connection, in a second at most."""
        connection, self._channel = self._connection, None
        if connection is not None and connection.is_open:
            connection.close()
            self._run(1)


def new_event(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """Make an event: when the run ends; keep it until it is confirmed."""
    now = datetime.now(UTC).isoformat()
    envelope = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "hub"}
    return {**envelope, "type": kind, "time": now, "data": data}


def main() -> int:
    """Publish a user and a run of theirs; return the exit code."""
    user = {"user_id": os.environ["USER_ID"]}
    run = {"server_id": "weather", "tool_name": "forecast", "origin": "hub", "status": "succeeded"}
    publisher, code = Publisher(os.environ["AMQP_URL"]), 0
    for event in (
        new_event("user.created.v1", user | {"email": "ada@example.com", "name": "Ada Lovelace"}),
        new_event("tool.executed.v1", user | run),
    ):
        outcome = publisher.publish(event)
        print(f"{event['type']} {event['id']}: {outcome}")
        code |= outcome != "confirmed"
    publisher.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
