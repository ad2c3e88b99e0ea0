"""What Celery's and Dramatiq's tasks share: tool runs, and a row of the ledger for each.

It runs in the peers' own environment, without any of this project's packages.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, LifoQueue
from typing import Any, Final
from uuid import uuid4

import psycopg

USERS: Final = 100
BODY_BYTES: Final = 1024
SENDERS: Final = 16

INSERT: Final = """
INSERT INTO usage_events (event_id, source, schema_version, digest, user_id, server_id, tool_name,
                          origin, status, metadata, readings, occurred_at, billing_state)
VALUES (%(id)s, %(source)s, 1, %(digest)s, %(user_id)s, %(server_id)s, %(tool_name)s,
        %(origin)s, %(status)s, %(metadata)s, '{"tool_call_executed": 1}', %(time)s, 'waiting')
ON CONFLICT (event_id) DO NOTHING
"""

_idle: Final[LifoQueue[Any]] = LifoQueue()
"""Sessions that no thread uses now: there are as many as threads insert at once."""


def record(event: dict[str, Any]) -> None:
    """Insert a run; it is committed when this returns.

    In autocommit mode the statement is a transaction by itself, which is the cheapest one there is:
    one round trip, and psycopg prepares the statement after its first runs.
    """
    digest = hashlib.sha256(json.dumps(event).encode()).digest()
    try:
        session = _idle.get_nowait()
    except Empty:
        session = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    metadata = json.dumps(event["data"]["metadata"])
    session.execute(INSERT, {**event["data"], **event, "digest": digest, "metadata": metadata})
    _idle.put(session)


def queue_runs(send: Callable[[dict[str, Any]], object], count: int) -> None:
    """Have ``send`` queue ``count`` tool runs of a kilobyte, of a hundred users."""
    users = [str(uuid4()) for _ in range(USERS)]
    padding = "x" * (BODY_BYTES - len(json.dumps(_run(users[0], ""))))
    events = (_run(users[number % USERS], padding) for number in range(count))
    # Threads, since each waits for the broker's confirm.
    with ThreadPoolExecutor(SENDERS) as senders:
        deque(senders.map(send, events), maxlen=0)


def _run(user_id: str, padding: str) -> dict[str, Any]:
    data = {
        "user_id": user_id,
        "server_id": "weather",
        "tool_name": "forecast",
        "origin": "direct",
        "status": "succeeded",
        "metadata": {"padding": padding},
    }
    return {
        "specversion": "1.0",
        "type": "tool.executed",
        "source": "test/hub",
        "id": str(uuid4()),
        "time": "2026-01-01T00:00:00Z",
        "data": data,
    }
