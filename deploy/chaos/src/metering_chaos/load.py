"""The load of a run: users created early, late and never, tool runs, and invalid messages."""

import json
import random
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from local_stack.publishing import Event
from metering_chaos.evidence import Message, MessageKind, ModelUsage, Organisation, ToolRun
from metering_chaos.plan_file import MICRO_USD

SOURCE: Final = "chaos/hub"
ORIGINS: Final = ("direct", "hub", "job")
TOOLS: Final = (
    ("weather", "forecast"),
    ("weather", "radar"),
    ("search", "web"),
    ("browser", "open_page"),
    ("sql-reports", "query"),
)
PLANS: Final = ("enterprise", "pro")
"""Of the organisations; users on their own are on the plan Free."""

MEMBERS: Final = 3

USERS_EARLY, USERS_LATE = 0.80, 0.95
"""Up to the first share of the users are created at the start, up to the second during the run,
and the others never."""

# Shares of the tool runs.
FAILED: Final = 0.05
DUPLICATED: Final = 0.03
INVALID: Final = 0.01
ID_REUSED: Final = 0.003
WITH_MODEL: Final = 0.25
TOKENS_LATER: Final = 0.4
"""The share of the runs with a model whose model and tokens are published later than the run."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A message and when it is published, in seconds from the start."""

    at: float
    message: Message


def make_organisations(seed: int) -> tuple[Organisation, ...]:
    """Make the organisations of a load; they are to have their plans before it begins."""
    rng = random.Random(f"organisations {seed}")  # noqa: S311 - repeatable by seed, no secret
    return tuple(
        Organisation(_uuid(rng), plan, tuple(_uuid(rng) for _ in range(MEMBERS))) for plan in PLANS
    )


def make_load(seed: int, events: int, seconds: float, start: datetime) -> tuple[Scheduled, ...]:
    """Make ``events`` tool runs and what accompanies them, spread over ``seconds``, in order."""
    rng = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    users = [_uuid(rng) for _ in range(max(10, min(80, events // 100)))]
    users += [member for each in make_organisations(seed) for member in each.members]
    rng.shuffle(users)
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
    """Make a run, and sometimes a duplicate, an invalid message, or another run under its id.

    A run with a model is one message of version 2, or one of version 1 and later one of version 2.
    """
    message = _run(rng, user, start + timedelta(seconds=at))
    found = [Scheduled(at, message)]
    if rng.random() < WITH_MODEL and message.run is not None:
        model = rng.choice(list(MICRO_USD))
        usage = ModelUsage(model, rng.randrange(1, 3000), rng.randrange(1, 500))
        time = start + timedelta(seconds=at)
        with_model = _run_message(message.event_id, message.run, time, usage)
        if rng.random() < TOKENS_LATER:
            found.append(Scheduled(rng.uniform(at, seconds), with_model))
        else:
            message = with_model
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


def _run_message(
    event_id: UUID, run: ToolRun, time: datetime, usage: ModelUsage | None = None
) -> Message:
    type_ = "tool.executed.v1"
    data: dict[str, object] = {
        "user_id": str(run.user),
        "server_id": run.server,
        "tool_name": run.tool,
        "origin": run.origin,
        "status": run.status,
        "token_count": run.tokens,
    }
    if usage is not None:
        type_ = "tool.executed.v2"
        data |= asdict(usage)
    body = Event.of(event_id, type_, SOURCE, time, data).body
    return Message(MessageKind.RUN, type_, event_id, body, run=run, usage=usage)


def _invalid(rng: random.Random, like: Message) -> Message:
    """Make a message that must be dead-lettered, in one of four ways."""
    envelope = json.loads(like.body)
    event_id = _uuid(rng)
    envelope["id"] = str(event_id)
    key = like.routing_key
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
