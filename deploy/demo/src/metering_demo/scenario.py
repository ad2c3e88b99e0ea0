"""What the demo publishes: users, their tool runs, and the trouble among them. Pure and seeded."""

import json
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

ORIGINS: Final = {
    "direct": "nexus/mcp-route",
    "hub": "nexus/hub",
    "job": "nexus/job-runner",
}
TOOLS: Final = (
    ("weather", "forecast"),
    ("weather", "radar"),
    ("search", "web"),
    ("files", "convert"),
)
SPREAD: Final = timedelta(seconds=60)
"""The runs lie within this time before now, and so in several windows."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A message as an outside service puts it on the wire."""

    routing_key: str
    body: bytes
    message_id: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything to be published, in order.

    ``early`` users are created before any usage; ``late`` ones only after it. The customer of
    ``deleted`` is deleted at Stripe between the two.
    """

    users: tuple[UUID, ...]
    deleted: UUID
    early: tuple[Wire, ...]
    usage: tuple[Wire, ...]
    late: tuple[Wire, ...]


def make_scenario(*, users: int, runs: int, duplicates: int, seed: int, now: datetime) -> Scenario:
    """Make the scenario of ``seed``; the usage also holds three messages nobody can read."""
    rng = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    ids = tuple(_uuid(rng) for _ in range(users))
    usage = [_run(rng, ids[number % users], now) for number in range(runs)]
    usage += rng.sample(usage, duplicates)
    usage += _unreadable(rng, ids[0], now)
    rng.shuffle(usage)
    created = [_created(rng, user, number, now) for number, user in enumerate(ids)]
    return Scenario(ids, ids[0], tuple(created[:-1]), tuple(usage), tuple(created[-1:]))


def _uuid(rng: random.Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)


def _run(rng: random.Random, user: UUID, now: datetime) -> Wire:
    origin = rng.choice(sorted(ORIGINS))
    server, tool = rng.choice(TOOLS)
    data = {
        "user_id": str(user),
        "server_id": server,
        "tool_name": tool,
        "origin": origin,
        "status": "succeeded",
        "token_count": rng.randrange(10, 2000),
        "metadata": {"demo": True},
    }
    return _wire(rng, "tool.executed.v1", ORIGINS[origin], now - rng.random() * SPREAD, data)


def _created(rng: random.Random, user: UUID, number: int, now: datetime) -> Wire:
    data = {
        "user_id": str(user),
        "email": f"user{number:02}@example.com",
        "name": f"Demo User {number:02}",
    }
    return _wire(rng, "user.created.v1", "nexus/accounts", now, data)


def _unreadable(rng: random.Random, user: UUID, now: datetime) -> list[Wire]:
    whole = _run(rng, user, now)
    envelope = json.loads(whole.body)
    newer = {**envelope, "id": str(_uuid(rng)), "type": "tool.executed.v99"}
    nobody = {**envelope, "id": str(_uuid(rng)), "data": {**envelope["data"]}}
    del nobody["data"]["user_id"]
    return [
        Wire("tool.executed.v1", whole.body[:-20], whole.message_id),
        Wire("tool.executed.v99", json.dumps(newer).encode(), newer["id"]),
        Wire("tool.executed.v1", json.dumps(nobody).encode(), nobody["id"]),
    ]


def _wire(rng: random.Random, kind: str, source: str, time: datetime, data: dict[str, Any]) -> Wire:
    event_id = str(_uuid(rng))
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": kind,
        "time": time.isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }
    return Wire(kind, json.dumps(envelope).encode(), event_id)
