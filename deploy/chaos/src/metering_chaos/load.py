"""The load of a run: users created early, late and never, tool runs, and invalid messages."""

import json
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from local_stack.publishing import Event
from metering_chaos.evidence import Message, MessageKind, ToolRun

SOURCE: Final = "chaos/hub"
ORIGINS: Final = ("direct", "hub", "job")
TOOLS: Final = (("weather", "forecast"), ("weather", "radar"), ("search", "web"))

USERS_EARLY, USERS_LATE = 0.80, 0.95
"""Up to the first share of the users are created at the start, up to the second during the run,
and the others never."""

# Shares of the tool runs.
FAILED: Final = 0.05
DUPLICATED: Final = 0.03
INVALID: Final = 0.01
ID_REUSED: Final = 0.003


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A message and when it is published, in seconds from the start."""

    at: float
    message: Message


def make_load(seed: int, events: int, seconds: float, start: datetime) -> tuple[Scheduled, ...]:
    """Make ``events`` tool runs and what accompanies them, spread over ``seconds``, in order."""
    rng = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    users = [_uuid(rng) for _ in range(max(10, min(80, events // 100)))]
    load = [*_users(rng, users, seconds, start)]
    for number in range(events):
        at = seconds * number / events
        load += _run_messages(rng, rng.choice(users), at, seconds, start)
    return tuple(sorted(load, key=lambda scheduled: scheduled.at))


def _users(
    rng: random.Random, users: list[UUID], seconds: float, start: datetime
) -> list[Scheduled]:
    found = []
    for number, user in enumerate(users):
        if number >= len(users) * USERS_LATE:
            continue
        at = 0.0 if number < len(users) * USERS_EARLY else rng.uniform(0.2, 0.9) * seconds
        data = {"user_id": str(user), "email": f"user{number:03}@example.com", "name": "Chaos"}
        event_id = _uuid(rng)
        body = Event.of(event_id, "user.created.v1", SOURCE, start, data).body
        message = Message(MessageKind.USER, "user.created.v1", event_id, body, user=user)
        found += [Scheduled(at, message)] * rng.choice((1, 1, 2))
    return found


def _run_messages(
    rng: random.Random, user: UUID, at: float, seconds: float, start: datetime
) -> list[Scheduled]:
    """Make a run, and sometimes a duplicate, an invalid message, or another run under its id."""
    message = _run(rng, user, start + timedelta(seconds=at))
    found = [Scheduled(at, message)]
    if rng.random() < DUPLICATED:
        found.append(Scheduled(rng.uniform(at, seconds), message))
    if rng.random() < INVALID:
        found.append(Scheduled(at, _invalid(rng, message)))
    if rng.random() < ID_REUSED and message.run is not None:
        other = replace(message.run, tokens=message.run.tokens + 1, tool="another")
        time = start + timedelta(seconds=at)
        found.append(
            Scheduled(rng.uniform(at, seconds), _run_message(message.event_id, other, time))
        )
    return found


def _run(rng: random.Random, user: UUID, time: datetime) -> Message:
    server, tool = rng.choice(TOOLS)
    status = "failed" if rng.random() < FAILED else "succeeded"
    run = ToolRun(user, server, tool, rng.choice(ORIGINS), status, rng.randrange(10, 2000))
    return _run_message(_uuid(rng), run, time)


def _run_message(event_id: UUID, run: ToolRun, time: datetime) -> Message:
    data = {
        "user_id": str(run.user),
        "server_id": run.server,
        "tool_name": run.tool,
        "origin": run.origin,
        "status": run.status,
        "token_count": run.tokens,
    }
    body = Event.of(event_id, "tool.executed.v1", SOURCE, time, data).body
    return Message(MessageKind.RUN, "tool.executed.v1", event_id, body, run=run)


def _invalid(rng: random.Random, like: Message) -> Message:
    """Make a message that must be dead-lettered, in one of four ways."""
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
    return Message(MessageKind.INVALID, key, event_id, body)


def _uuid(rng: random.Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)
