"""What goes wrong in a run, when and against what: decided by the seed alone."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """A kind of fault."""

    KILL_SERVICE = "kill_service"
    STOP_SERVICE = "stop_service"
    FREEZE_SERVICE = "freeze_service"
    OVERSLEEP = "oversleep"
    KILL_BROKER = "kill_broker"
    RESTART_BROKER = "restart_broker"
    CLOSE_CONNECTIONS = "close_connections"
    MEMORY_ALARM = "memory_alarm"
    KILL_DATABASE = "kill_database"
    RESTART_DATABASE = "restart_database"
    LOCK_TABLE = "lock_table"
    FREEZE_IN_TRANSACTION = "freeze_in_transaction"
    END_SESSIONS = "end_sessions"
    REACH_STANDBY = "reach_standby"
    FILL_DISK = "fill_disk"
    CUT_ROAD = "cut_road"
    STALL_ROAD = "stall_road"
    CLOSE_ROAD = "close_road"
    SILENCE_ROAD = "silence_road"
    SLOW_ROAD = "slow_road"
    SILENT_ADDRESS = "silent_address"
    SILENT_HANDSHAKE = "silent_handshake"
    STRIPE_ANSWER = "stripe_answer"
    REVOKE_KEY = "revoke_key"
    DELETE_CUSTOMER = "delete_customer"
    STRIPE_CLOCK = "stripe_clock"
    DUPLICATES = "duplicates"
    MOVE = "move"
    WRONG_MOVE = "wrong_move"
    PEEK = "peek"
    APPLY_TOPOLOGY = "apply_topology"
    CHANGE_POLICY = "change_policy"
    DISPLACE_POLICY = "displace_policy"


SERVICES: Final = ("customer-provisioner", "usage-ingest", "stripe-reporter")
PROCESSES: Final = (*SERVICES, *(f"{service} 2" for service in SERVICES))
"""As in production: a second reporter stands by, of the others two share the work."""

WORK_QUEUES: Final = (
    "customer-provisioner.user-created",
    "usage-ingest.tool-executed",
    "usage-ingest.customer-provisioned",
    "usage-ingest.usage-outcomes",
    "stripe-reporter.usage-recorded",
)
ROADS: Final = (
    *(f"{process}>{part}" for process in PROCESSES for part in ("broker", "database")),
    # The second processes' URLs are lists of two hosts, the first ones' name a single one.
    *(f"{service} 2>{part}, other" for service in SERVICES for part in ("broker", "database")),
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
# Tables in which a process's change is met soon; those of users have long quiet times.
WRITTEN: Final = tuple(table for table in TABLES if not table.endswith("billing_accounts"))
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
TIERS: Final = ("retry.1", "retry.2", "retry.3", "retry.4")
# Policies of the topology, and what an operator makes of them.
POLICIES: Final = (
    *(f"nexus.{tier} message-ttl" for tier in TIERS),
    *(f"nexus.{queue} delivery-limit" for queue in WORK_QUEUES),
)

TARGETS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.KILL_SERVICE: PROCESSES,
    Kind.STOP_SERVICE: PROCESSES,
    Kind.FREEZE_SERVICE: PROCESSES,
    Kind.OVERSLEEP: PROCESSES,
    Kind.LOCK_TABLE: TABLES,
    Kind.FREEZE_IN_TRANSACTION: WRITTEN,
    Kind.END_SESSIONS: SERVICES,
    Kind.REACH_STANDBY: SERVICES,
    Kind.CUT_ROAD: ROADS,
    Kind.STALL_ROAD: ROADS,
    Kind.CLOSE_ROAD: ROADS,
    Kind.SILENCE_ROAD: ROADS,
    Kind.SLOW_ROAD: ROADS,
    Kind.SILENT_ADDRESS: ROADS,
    Kind.SILENT_HANDSHAKE: ROADS,
    Kind.STRIPE_ANSWER: ANSWERS,
    Kind.MOVE: MOVED,
    Kind.WRONG_MOVE: DESTINATIONS,
    Kind.PEEK: MOVED,
    Kind.CHANGE_POLICY: POLICIES,
    # The shortest wait, in which everything is that is handed back.
    Kind.DISPLACE_POLICY: TIERS[:1],
}
WEIGHTS: Final[Mapping[Kind, int]] = {
    **dict.fromkeys(Kind, 2),
    Kind.KILL_SERVICE: 6,
    Kind.STOP_SERVICE: 4,
    Kind.CUT_ROAD: 4,
    Kind.STALL_ROAD: 4,
    Kind.STRIPE_ANSWER: 8,
    Kind.OVERSLEEP: 3,
    Kind.END_SESSIONS: 3,
    Kind.FREEZE_IN_TRANSACTION: 3,
    Kind.KILL_BROKER: 1,
    Kind.RESTART_BROKER: 1,
}
# Of a run's time, when the first fault may come and by when the last one does.
_FROM, _TO = 0.05, 0.97
# When the tables have outgrown what a full disk lets them keep.
_GROWN = 0.4
_SHORTEST, _LONGEST = 0.5, 6.0

OUTLASTS: Final[Mapping[Kind, float]] = {
    Kind.OVERSLEEP: 35.0,
    Kind.FREEZE_IN_TRANSACTION: 11.0,
    Kind.SILENT_ADDRESS: 6.0,
    Kind.SILENT_HANDSHAKE: 6.0,
}
"""Seconds that a fault lasts at least, longer than the limit that is to end its effect: of a call
to Stripe with its record, and of two missed heartbeats; of an open transaction in which nothing
happens, 10 s; of opening a connection to one address, 5 s."""


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
    planned = [_fault(rng, at, kind, seconds) for at, kind in zip(moments, kinds, strict=True)]
    planned.sort(key=lambda fault: fault.at)
    return tuple(replace(fault, number=number) for number, fault in enumerate(planned, start=1))


def _fault(rng: random.Random, at: float, kind: Kind, seconds: float) -> Fault:
    """Draw a fault; one that is to outlast something begins early enough to see what came of it."""
    target = rng.choice(TARGETS.get(kind, ("",)))
    lasts = round(rng.uniform(_SHORTEST, _LONGEST), 2)
    if kind is Kind.FILL_DISK:
        at = max(at, seconds * _GROWN)
    if kind in OUTLASTS:
        lasts += OUTLASTS[kind]
        at = max(seconds * _FROM, min(at, seconds - lasts))
    return Fault(0, round(at, 3), kind, target, lasts, rng.randrange(1_000_000))
