"""Dramatiq in its safe configuration: a quorum queue and confirms; it always acks afterwards.

``python dramatiq_tasks.py COUNT`` queues so many messages. The worker is Dramatiq's own command.
"""

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from peers import ledger


class QuorumBroker(RabbitmqBroker):  # type: ignore[misc]  # its types are not installed here
    """Declares quorum queues; Dramatiq has no setting for it."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


dramatiq.set_broker(QuorumBroker(url=os.environ["AMQP_URL"], confirm_delivery=True))


def record_usage(event: dict[str, Any]) -> None:
    """Record a run."""
    ledger.record(event)


record_usage_actor = dramatiq.actor(record_usage, queue_name="dramatiq")

if __name__ == "__main__":
    ledger.queue_runs(record_usage_actor.send, int(sys.argv[1]))
