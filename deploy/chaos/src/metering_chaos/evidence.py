"""What was published, and what the ledger, the broker and Stripe say became of it: values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Fact:
    """What a tool run says: two messages of one id and one fact are the same run."""

    user: UUID
    server: str
    tool: str
    origin: str
    status: str
    tokens: int

    @property
    def billable(self) -> bool:
        """Whether it is to be paid for."""
        return self.status == "succeeded"


class Sort(StrEnum):
    """What a message is."""

    RUN = "run"
    USER = "user"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Wire:
    """A message as an outside service puts it on the wire.

    ``event_id`` is the envelope's; of a broken message nobody may be able to read it. ``fact`` is
    a run's, ``user`` the one whom a user's message creates.
    """

    sort: Sort
    routing_key: str
    event_id: UUID
    body: bytes = field(repr=False)
    fact: Fact | None = None
    user: UUID | None = None


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """A row of the ledger; ``claim`` leads to its reports."""

    event_id: UUID
    fact: Fact
    state: str
    claim: UUID | None


@dataclass(frozen=True, slots=True)
class Report:
    """A usage report as the ledger has it; ``value`` and ``events`` are what it says it sums."""

    report_id: UUID
    identifier: str
    claim: UUID
    customer: str
    meter: str
    value: int
    events: int
    state: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a dead-letter queue or in `unroutable`."""

    queue: str
    reason: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Charge:
    """What Stripe accepted under one identifier: ``times`` should be 1."""

    identifier: str
    customer: str
    meter: str
    value: int
    times: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything there is to judge by.

    ``confirmed`` and ``unconfirmed`` are what was published; the second may or may not have
    arrived. ``profiles`` are the users that provisioning knows, ``accounts`` the customers of those
    whom the ledger can bill, ``customers`` how many customers Stripe has of a user, ``sums`` what
    Stripe counted for a customer and meter, ``queued`` what is ready in queues that should be
    empty in the end.
    """

    confirmed: Sequence[Wire]
    unconfirmed: Sequence[Wire]
    events: Sequence[LedgerEvent]
    reports: Sequence[Report]
    profiles: frozenset[UUID]
    accounts: Mapping[UUID, str]
    letters: Sequence[Letter]
    charges: Sequence[Charge]
    sums: Mapping[tuple[str, str], int]
    customers: Mapping[UUID, int]
    queued: Mapping[str, int]
