"""What the demo publishes: users, tool runs, duplicates and unreadable messages, by a seed."""

import json
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from local_stack.publishing import Event

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
"""The runs lie within this time before now, so that they fall into several windows."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything to be published, in order.

    ``early`` users are created before any usage, ``late`` ones after it. The customer of
    ``deleted`` is deleted at Stripe before the usage.
    """

    deleted: UUID
    early: tuple[Event, ...]
    usage: tuple[Event, ...]
    late: tuple[Event, ...]


def make_scenario(*, users: int, runs: int, duplicates: int, seed: int, now: datetime) -> Scenario:
    """Make the scenario of ``seed``; its usage also has three messages that cannot be read."""
    rng = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    ids = tuple(_uuid(rng) for _ in range(users))
    usage = [_run(rng, ids[number % users], now) for number in range(runs)]
    usage += rng.sample(usage, duplicates)
    usage += _unreadable(rng, ids[0], now)
    rng.shuffle(usage)
    created = [_created(rng, user, number, now) for number, user in enumerate(ids)]
    return Scenario(ids[0], tuple(created[:-1]), tuple(usage), tuple(created[-1:]))


def _uuid(rng: random.Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)


def _run(rng: random.Random, user: UUID, now: datetime) -> Event:
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
    return _event(rng, "tool.executed.v1", ORIGINS[origin], now - rng.random() * SPREAD, data)


def _created(rng: random.Random, user: UUID, number: int, now: datetime) -> Event:
    data = {
        "user_id": str(user),
        "email": f"user{number:02}@example.com",
        "name": f"Demo User {number:02}",
    }
    return _event(rng, "user.created.v1", "nexus/accounts", now, data)


def _unreadable(rng: random.Random, user: UUID, now: datetime) -> list[Event]:
    """Make three messages that cannot be read: truncated, of another version, without a user."""
    complete = _run(rng, user, now)
    envelope = json.loads(complete.body)
    newer = {**envelope, "id": str(_uuid(rng)), "type": "tool.executed.v99"}
    userless = {**envelope, "id": str(_uuid(rng)), "data": {**envelope["data"]}}
    del userless["data"]["user_id"]
    return [
        Event(complete.id, complete.type, complete.body[:-20]),
        Event(newer["id"], "tool.executed.v99", json.dumps(newer).encode()),
        Event(userless["id"], "tool.executed.v1", json.dumps(userless).encode()),
    ]


def _event(
    rng: random.Random, type_: str, source: str, time: datetime, data: dict[str, Any]
) -> Event:
    return Event.of(_uuid(rng), type_, source, time, data)
