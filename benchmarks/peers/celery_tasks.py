"""Celery in its safe configuration: a quorum queue, confirms, and an ack after the commit.

``python celery_tasks.py COUNT`` queues so many tasks. The worker is Celery's own command.
"""

import os
import sys
from typing import Any

from celery import Celery

from peers import ledger

app = Celery("peers.celery_tasks", broker=os.environ["AMQP_URL"])
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue="celery",
    task_default_queue_type="quorum",
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=50,
    worker_hijack_root_logger=False,
)


def record_usage(event: dict[str, Any]) -> None:
    """Record a run."""
    ledger.record(event)


record_usage_task = app.task(record_usage)

if __name__ == "__main__":
    ledger.queue_runs(record_usage_task.delay, int(sys.argv[1]))
