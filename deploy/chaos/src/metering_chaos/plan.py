"""What goes wrong in a run, when and against what: decided by the seed alone."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """A kind of fault."""

    KILL_SERVICE = "kill_service"
    STOP_SERVICE = "stop_service"
    FREEZE_SERVICE = "freeze_service"
    KILL_BROKER = "kill_broker"
    RESTART_BROKER = "restart_broker"
    CLOSE_CONNECTIONS = "close_connections"
    MEMORY_ALARM = "memory_alarm"
    KILL_DATABASE = "kill_database"
    RESTART_DATABASE = "restart_database"
    LOCK_TABLE = "lock_table"
    CUT_ROAD = "cut_road"
    STALL_ROAD = "stall_road"
    CLOSE_ROAD = "close_road"
    SILENCE_ROAD = "silence_road"
    STRIPE_ANSWER = "stripe_answer"
    REVOKE_KEY = "revoke_key"
    DELETE_CUSTOMER = "delete_customer"
    DUPLICATES = "duplicates"
    MOVE = "move"
    WRONG_MOVE = "wrong_move"
    PEEK = "peek"


SERVICES: Final = ("customer-provisioner", "usage-ingest", "stripe-reporter")
WORK_QUEUES: Final = (
    "customer-provisioner.user-created",
    "usage-ingest.tool-executed",
    "usage-ingest.customer-provisioned",
    "usage-ingest.usage-outcomes",
    "stripe-reporter.usage-recorded",
)
ROADS: Final = (
    *(f"{service}>{part}" for service in SERVICES for part in ("broker", "database")),
    "publisher>broker",
    "stripe",
)
TABLES: Final = (
    "usage-ingest usage_events",
    "usage-ingest usage_reports",
    "usage-ingest billing_accounts",
    "stripe-reporter meter_calls",
    "customer-provisioner user_profiles",
)
# A kind of the local Stripe's faults and on which side of the call's effect it befalls.
ANSWERS: Final = (
    "rate_limited before",
    "lock_timeout before",
    "conflict before",
    "server_error before",
    "server_error after",
    "html_503 before",
    "html_503 after",
    "reset before",
    "reset after",
    "truncated after",
    "latency before",
    "latency after",
)
# What is dead for good reasons is mostly this queue's; it is where moves have something to move.
MOVED: Final = ("usage-ingest.tool-executed", *WORK_QUEUES)
DESTINATIONS: Final = tuple(
    f"{source}>{other}"
    for source in ("usage-ingest.tool-executed", "stripe-reporter.usage-recorded")
    for other in WORK_QUEUES
    if other != source
)

TARGETS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.KILL_SERVICE: SERVICES,
    Kind.STOP_SERVICE: SERVICES,
    Kind.FREEZE_SERVICE: SERVICES,
    Kind.LOCK_TABLE: TABLES,
    Kind.CUT_ROAD: ROADS,
    Kind.STALL_ROAD: ROADS,
    Kind.CLOSE_ROAD: ROADS,
    Kind.SILENCE_ROAD: ROADS,
    Kind.STRIPE_ANSWER: ANSWERS,
    Kind.MOVE: MOVED,
    Kind.WRONG_MOVE: DESTINATIONS,
    Kind.PEEK: MOVED,
}
WEIGHTS: Final[Mapping[Kind, int]] = {
    **dict.fromkeys(Kind, 2),
    Kind.KILL_SERVICE: 6,
    Kind.STOP_SERVICE: 4,
    Kind.CUT_ROAD: 4,
    Kind.STALL_ROAD: 4,
    Kind.STRIPE_ANSWER: 8,
    Kind.KILL_BROKER: 1,
    Kind.RESTART_BROKER: 1,
}
# Of a run's time, when the first fault may come and by when the last one does.
_FROM, _TO = 0.05, 0.97
_SHORTEST, _LONGEST = 0.5, 6.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong ``at`` seconds, for ``seconds`` if it lasts.

    ``target`` is a service, a road, a table, an answer or a queue, as its kind needs; ``draw`` is
    a random number for whatever can only be chosen when it comes.
    """

    number: int
    at: float
    kind: Kind
    target: str
    seconds: float
    draw: int

    def __str__(self) -> str:
        return f"{self.kind} {self.target}".strip()


def make_plan(seed: int, faults: int, seconds: float) -> tuple[Fault, ...]:
    """Plan ``faults`` faults over ``seconds``; every kind comes if there are enough of them."""
    rng = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    kinds = rng.sample(list(Kind), min(faults, len(Kind)))
    kinds += rng.choices(list(Kind), [WEIGHTS[kind] for kind in Kind], k=faults - len(kinds))
    rng.shuffle(kinds)
    span = seconds * (_TO - _FROM)
    moments = (
        seconds * _FROM + span * (number + rng.random()) / faults for number in range(faults)
    )
    return tuple(
        Fault(
            number,
            round(at, 3),
            kind,
            rng.choice(TARGETS.get(kind, ("",))),
            round(rng.uniform(_SHORTEST, _LONGEST), 2),
            rng.randrange(1_000_000),
        )
        for number, (at, kind) in enumerate(zip(moments, kinds, strict=True), start=1)
    )
