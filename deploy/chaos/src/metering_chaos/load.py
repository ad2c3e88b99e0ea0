"""What is published during a run: users early, late and never, runs, and the unacceptable."""

import json
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from metering_chaos.evidence import Fact, Sort, Wire

ORIGINS: Final = ("direct", "hub", "job")
TOOLS: Final = (("weather", "forecast"), ("weather", "radar"), ("search", "web"))

USERS_EARLY, USERS_LATE = 0.80, 0.95
"""Shares of the users: created at once, by the first; sometime, by the second; the rest never."""

FAILED: Final = 0.05
TWICE: Final = 0.03
BROKEN: Final = 0.01
ID_REUSED: Final = 0.003


@dataclass(frozen=True, slots=True)
class Due:
    """A message and when it is published, in seconds from the start."""

    at: float
    wire: Wire


def make_load(seed: int, events: int, seconds: float, start: datetime) -> tuple[Due, ...]:
    """Make ``events`` tool runs and all that comes with them, spread over ``seconds``, in order."""
    rng = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    users = [_uuid(rng) for _ in range(max(10, min(80, events // 100)))]
    load = [*_users(rng, users, seconds, start)]
    for number in range(events):
        at = seconds * number / events
        load += _around(rng, rng.choice(users), at, seconds, start)
    return tuple(sorted(load, key=lambda due: due.at))


def _users(rng: random.Random, users: list[UUID], seconds: float, start: datetime) -> list[Due]:
    found = []
    for number, user in enumerate(users):
        if number >= len(users) * USERS_LATE:
            continue
        at = 0.0 if number < len(users) * USERS_EARLY else rng.uniform(0.2, 0.9) * seconds
        data = {"user_id": str(user), "email": f"user{number:03}@example.com", "name": "Chaos"}
        event_id = _uuid(rng)
        body = _body(event_id, "user.created.v1", start, data)
        wire = Wire(Sort.USER, "user.created.v1", event_id, body, user=user)
        found += [Due(at, wire)] * rng.choice((1, 1, 2))
    return found


def _around(
    rng: random.Random, user: UUID, at: float, seconds: float, start: datetime
) -> list[Due]:
    """Make a run, and sometimes its duplicate, or something like it that nobody may accept."""
    wire = _run(rng, user, start + timedelta(seconds=at))
    found = [Due(at, wire)]
    if rng.random() < TWICE:
        found.append(Due(rng.uniform(at, seconds), wire))
    if rng.random() < BROKEN:
        found.append(Due(at, _broken(rng, wire)))
    if rng.random() < ID_REUSED and wire.fact is not None:
        other = replace(wire.fact, tokens=wire.fact.tokens + 1, tool="another")
        time = start + timedelta(seconds=at)
        found.append(Due(rng.uniform(at, seconds), _wire(wire.event_id, other, time)))
    return found


def _run(rng: random.Random, user: UUID, time: datetime) -> Wire:
    server, tool = rng.choice(TOOLS)
    status = "failed" if rng.random() < FAILED else "succeeded"
    fact = Fact(user, server, tool, rng.choice(ORIGINS), status, rng.randrange(10, 2000))
    return _wire(_uuid(rng), fact, time)


def _wire(event_id: UUID, fact: Fact, time: datetime) -> Wire:
    data = {
        "user_id": str(fact.user),
        "server_id": fact.server,
        "tool_name": fact.tool,
        "origin": fact.origin,
        "status": fact.status,
        "token_count": fact.tokens,
    }
    body = _body(event_id, "tool.executed.v1", time, data)
    return Wire(Sort.RUN, "tool.executed.v1", event_id, body, fact=fact)


def _broken(rng: random.Random, like: Wire) -> Wire:
    """Make a message that is to be dead-lettered as it is: cut off, of tomorrow, of nobody."""
    envelope = json.loads(like.body)
    event_id = _uuid(rng)
    envelope["id"] = str(event_id)
    key = "tool.executed.v1"
    match rng.randrange(4):
        case 0:
            body = json.dumps(envelope).encode()[:-20]
        case 1:
            key = "tool.executed.v99"
            body = json.dumps({**envelope, "type": key}).encode()
        case 2:
            tomorrow = datetime.fromisoformat(envelope["time"]) + timedelta(days=1)
            body = json.dumps({**envelope, "time": tomorrow.isoformat()}).encode()
        case _:
            del envelope["data"]["user_id"]
            body = json.dumps(envelope).encode()
    return Wire(Sort.BROKEN, key, event_id, body)


def _body(event_id: UUID, kind: str, time: datetime, data: dict[str, Any]) -> bytes:
    envelope = {
        "specversion": "1.0",
        "id": str(event_id),
        "source": "chaos/hub",
        "type": kind,
        "time": time.isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(envelope).encode()


def _uuid(rng: random.Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)
