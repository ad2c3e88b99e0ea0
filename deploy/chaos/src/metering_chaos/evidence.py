"""The evidence of a run: what was published, and what ledger, broker and Stripe hold of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from local_stack.dead_letters import DeadLetter


@dataclass(frozen=True, slots=True)
class ToolRun:
    """The content of a tool run; two messages with one id and one content are the same run."""

    user: UUID
    server: str
    tool: str
    origin: str
    status: str
    tokens: int

    @property
    def billable(self) -> bool:
        """Whether it is billed."""
        return self.status == "succeeded"


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """The model that a run used, and its tokens by kind: what version 2 of its event adds."""

    model: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Organisation:
    """An account that has subscribed to a plan of the plan file, and pays for its members."""

    account: UUID
    plan: str
    members: tuple[UUID, ...]


class MessageKind(StrEnum):
    """What a message is: a tool run, a user's creation, or one that no consumer may accept."""

    RUN = "run"
    USER = "user"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Message:
    """A message as an outside service publishes it.

    ``event_id`` is the envelope's; that of an invalid message may be unreadable. A tool run has
    ``run``, one of version 2 also ``usage``, and a user's creation has ``user``.
    """

    kind: MessageKind
    routing_key: str
    event_id: UUID
    body: bytes = field(repr=False)
    run: ToolRun | None = None
    usage: ModelUsage | None = None
    user: UUID | None = None


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """A row of the ledger; ``claim`` leads to its reports, ``usage`` is stored beside it."""

    event_id: UUID
    run: ToolRun
    state: str
    claim: UUID | None
    usage: ModelUsage | None = None


@dataclass(frozen=True, slots=True)
class LateReading:
    """What a run's tokens cost in micro-USD, where that came later than the run."""

    event_id: UUID
    value: int
    state: str
    claim: UUID | None


@dataclass(frozen=True, slots=True)
class FirstUse:
    """The first use of a tool by an account, taken by a claim."""

    account: UUID
    server: str
    tool: str
    claim: UUID


@dataclass(frozen=True, slots=True)
class Report:
    """A usage report of the ledger; ``value`` and ``events`` are the sums stored with it."""

    report_id: UUID
    identifier: str
    claim: UUID
    customer: str
    meter: str
    value: int
    events: int
    state: str


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """What Stripe accepted under one identifier, ``times`` times; it should be once.

    ``hour`` is the one it belongs to. Stripe may find out later that it is not ``counted``.
    """

    identifier: str
    customer: str
    meter: str
    value: int
    times: int
    hour: datetime
    counted: bool = True


@dataclass(frozen=True, slots=True)
class HourDifference:
    """By how much Stripe's sum of an hour is above the ledger's, or, below 0, under it."""

    customer: str
    meter: str
    hour: datetime
    kind: str
    by: int


@dataclass(frozen=True, slots=True)
class LaterWord:
    """What Stripe has said after its answers, and the ledger made of its sums.

    Attributes:
        rejected: The identifiers that the error reports name which a service has taken.
        differences: The ledger's open differences.
    """

    rejected: frozenset[str]
    differences: Sequence[HourDifference]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the check judges by.

    Attributes:
        confirmed: Messages that the broker confirmed.
        unconfirmed: Messages that may have arrived or not.
        organisations: Who pays for users that are not on their own, from before their first run.
        events: The ledger's events.
        late_readings: The ledger's readings that came later than their events.
        first_uses: The ledger's first uses of tools.
        reports: The ledger's reports.
        profiles: The users that customer-provisioner knows.
        accounts: The customers of the accounts that the ledger can bill.
        dead_letters: The messages that wait for a person.
        meter_events: What Stripe accepted.
        sums: What Stripe counted, by customer and meter.
        customers: The accounts of Stripe's customers that are not deleted.
        queued: Messages that are ready in queues that should be empty in the end.
        later: What Stripe has said later, once a day has passed; None: it was not waited for.
    """

    confirmed: Sequence[Message]
    unconfirmed: Sequence[Message]
    organisations: Sequence[Organisation]
    events: Sequence[LedgerEvent]
    late_readings: Sequence[LateReading]
    first_uses: Sequence[FirstUse]
    reports: Sequence[Report]
    profiles: frozenset[UUID]
    accounts: Mapping[UUID, str]
    dead_letters: Sequence[DeadLetter]
    meter_events: Sequence[MeterEvent]
    sums: Mapping[tuple[str, str], int]
    customers: Mapping[str, UUID]
    queued: Mapping[str, int]
    later: LaterWord | None = None
