"""Which faults a run has, when, and against what: decided by the seed and the broker's queues."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from typing_extensions import override


class Kind(StrEnum):
    """A kind of fault."""

    KILL_SERVICE = "kill_service"
    STOP_SERVICE = "stop_service"
    FREEZE_SERVICE = "freeze_service"
    OUTLAST_LEASES = "outlast_leases"
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
    RESET_PROXY = "reset_proxy"
    STALL_PROXY = "stall_proxy"
    CLOSE_PROXY = "close_proxy"
    BLACKHOLE_PROXY = "blackhole_proxy"
    SLOW_PROXY = "slow_proxy"
    SILENT_ADDRESS = "silent_address"
    SILENT_HANDSHAKE = "silent_handshake"
    STRIPE_ANSWER = "stripe_answer"
    REVOKE_KEY = "revoke_key"
    DELETE_CUSTOMER = "delete_customer"
    PRICE_MODEL = "price_model"
    STRIPE_CLOCK = "stripe_clock"
    DUPLICATES = "duplicates"
    MOVE = "move"
    WRONG_MOVE = "wrong_move"
    PEEK = "peek"
    APPLY_TOPOLOGY = "apply_topology"
    CHANGE_POLICY = "change_policy"
    DISPLACE_POLICY = "displace_policy"


PROVISIONER, INGEST, REPORTER = "customer-provisioner", "usage-ingest", "stripe-reporter"
SERVICES: Final = (PROVISIONER, INGEST, REPORTER)
PROCESSES: Final = (*SERVICES, *(f"{service} 2" for service in SERVICES))
"""As in production: a second reporter stands by, the other services share their work."""

PROXIES: Final = (
    *(f"{process}>{server}" for process in PROCESSES for server in ("broker", "database")),
    # The URLs of the second processes are lists of two hosts, those of the first name one host.
    *(f"{service} 2>{server}, other" for service in SERVICES for server in ("broker", "database")),
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
WRITTEN_TABLES: Final = tuple(table for table in TABLES if not table.endswith("billing_accounts"))
"""Tables that are written to often enough to freeze a process in its transaction."""

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
"""A kind of the local Stripe's faults, and on which side of the call's effect it happens."""

RUNS_QUEUE: Final = "usage-ingest.tool-executed"
REPORTS_QUEUE: Final = "stripe-reporter.usage-recorded"


@dataclass(frozen=True, slots=True)
class Queues:
    """The broker's queues, as the broker lists them.

    Attributes:
        work: The consumers' queues, each of which has a dead-letter queue.
        tiers: The retry tiers' queues, the shortest wait first.
        kept: Queues whose messages wait for a person: dead-letter queues and ``unroutable``.
        policies: A policy and one of its figures that an operator may change, such as
            ``nexus.retry.1 message-ttl``.
    """

    work: tuple[str, ...]
    tiers: tuple[str, ...]
    kept: tuple[str, ...]
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KindSpec:
    """What the plan knows of a kind of fault.

    Attributes:
        targets: What it may be aimed at; one is drawn.
        part: What it affects, if that is not its target: two faults of one part are carried out one
            after the other.
        weight: How often it is drawn, beside the one time that each kind has in a plan.
        at_least: Seconds that are added to its random duration, so that it outlasts the limit
            that ends its effect.
    """

    targets: tuple[str, ...] = ("",)
    part: str = ""
    weight: int = 2
    at_least: float = 0.0


def kind_specs(queues: Queues) -> Mapping[Kind, KindSpec]:
    """Describe every kind of fault for a broker that has ``queues``."""
    broker, database, stripe = (KindSpec(part=part) for part in ("broker", "database", "stripe"))
    process, proxy = KindSpec(PROCESSES), KindSpec(PROXIES)
    # Most dead letters are in the queue of tool runs, so it is moved from more often.
    moved = replace(broker, targets=(RUNS_QUEUE, *queues.work))
    misdirected = tuple(
        f"{source}>{other}"
        for source in (RUNS_QUEUE, REPORTS_QUEUE)
        for other in queues.work
        if other != source
    )
    return {
        Kind.KILL_SERVICE: replace(process, weight=6),
        Kind.STOP_SERVICE: replace(process, weight=4),
        Kind.FREEZE_SERVICE: process,
        # Longer than a call to Stripe with its record, and than two missed heartbeats.
        Kind.OUTLAST_LEASES: replace(process, weight=3, at_least=35),
        Kind.KILL_BROKER: replace(broker, weight=1),
        Kind.RESTART_BROKER: replace(broker, weight=1),
        Kind.CLOSE_CONNECTIONS: broker,
        Kind.MEMORY_ALARM: broker,
        Kind.APPLY_TOPOLOGY: broker,
        Kind.CHANGE_POLICY: replace(broker, targets=queues.policies),
        # Messages that are handed back go to the tier with the shortest wait.
        Kind.DISPLACE_POLICY: replace(broker, targets=queues.tiers[:1]),
        Kind.MOVE: moved,
        Kind.WRONG_MOVE: replace(broker, targets=misdirected),
        Kind.PEEK: moved,
        Kind.KILL_DATABASE: database,
        Kind.RESTART_DATABASE: database,
        Kind.LOCK_TABLE: replace(database, targets=TABLES),
        # Longer than a transaction may be idle: 10 s.
        Kind.FREEZE_IN_TRANSACTION: replace(
            database, targets=WRITTEN_TABLES, weight=3, at_least=11
        ),
        Kind.END_SESSIONS: replace(database, targets=SERVICES, weight=3),
        Kind.REACH_STANDBY: replace(database, targets=SERVICES),
        Kind.FILL_DISK: database,
        Kind.RESET_PROXY: replace(proxy, weight=4),
        Kind.STALL_PROXY: replace(proxy, weight=4),
        Kind.CLOSE_PROXY: proxy,
        Kind.BLACKHOLE_PROXY: proxy,
        Kind.SLOW_PROXY: proxy,
        # Longer than opening a connection to one address may take: 5 s.
        Kind.SILENT_ADDRESS: replace(proxy, at_least=6),
        Kind.SILENT_HANDSHAKE: replace(proxy, at_least=6),
        Kind.STRIPE_ANSWER: KindSpec(ANSWERS, weight=8),
        Kind.REVOKE_KEY: stripe,
        Kind.DELETE_CUSTOMER: stripe,
        Kind.STRIPE_CLOCK: stripe,
        Kind.PRICE_MODEL: KindSpec(weight=1),
        Kind.DUPLICATES: KindSpec(),
    }


# The shares of a run's time between which faults begin.
_FIRST, _LAST = 0.05, 0.97
# The share after which the tables have outgrown the files that a full disk still allows.
_TABLES_GROWN = 0.4
# Seconds.
_MIN_SECONDS, _MAX_SECONDS = 0.5, 6.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One planned fault.

    Attributes:
        number: Its place in the plan, from 1.
        at: When it begins, in seconds from the start of the load.
        kind: What happens.
        target: A process, proxy, table, answer, queue or policy, as its kind needs.
        part: What it affects.
        seconds: How long it lasts, if its kind lasts.
        draw: A random number for what can only be chosen when the fault begins.
    """

    number: int
    at: float
    kind: Kind
    target: str
    part: str
    seconds: float
    draw: int

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.target}".strip()


def make_plan(seed: int, faults: int, seconds: float, queues: Queues) -> tuple[Fault, ...]:
    """Plan ``faults`` faults over ``seconds``; every kind comes if there are enough of them."""
    rng = random.Random(seed)  # noqa: S311 - repeatable by seed, no secret
    specs = kind_specs(queues)
    kinds = rng.sample(list(Kind), min(faults, len(Kind)))
    kinds += rng.choices(list(Kind), [specs[kind].weight for kind in Kind], k=faults - len(kinds))
    rng.shuffle(kinds)
    span = seconds * (_LAST - _FIRST)
    moments = (
        seconds * _FIRST + span * (number + rng.random()) / faults for number in range(faults)
    )
    planned = [
        _fault(rng, at, kind, specs[kind], seconds) for at, kind in zip(moments, kinds, strict=True)
    ]
    planned.sort(key=lambda fault: fault.at)
    return tuple(replace(fault, number=number) for number, fault in enumerate(planned, start=1))


def _fault(rng: random.Random, at: float, kind: Kind, spec: KindSpec, seconds: float) -> Fault:
    """Draw a fault; one with a least duration begins early enough for its effects to show."""
    target = rng.choice(spec.targets)
    duration = round(rng.uniform(_MIN_SECONDS, _MAX_SECONDS), 2)
    if kind is Kind.FILL_DISK:
        at = max(at, seconds * _TABLES_GROWN)
    if spec.at_least:
        duration += spec.at_least
        at = max(seconds * _FIRST, min(at, seconds - duration))
    part = spec.part or target or kind
    return Fault(0, round(at, 3), kind, target, part, duration, rng.randrange(1_000_000))
