"""The evidence of a run: what was published, and what ledger, broker and Stripe hold of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


class MessageKind(StrEnum):
    """What a message is: a tool run, a user's creation, or one that no consumer may accept."""

    RUN = "run"
    USER = "user"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Message:
    """A message as an outside service publishes it.

    ``event_id`` is the envelope's; that of an invalid message may be unreadable. A tool run has
    ``run``, and a user's creation has ``user``.
    """

    kind: MessageKind
    routing_key: str
    event_id: UUID
    body: bytes = field(repr=False)
    run: ToolRun | None = None
    user: UUID | None = None


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """A row of the ledger; ``claim`` leads to its reports."""

    event_id: UUID
    run: ToolRun
    state: str
    claim: UUID | None


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
    """What Stripe accepted under one identifier, ``times`` times; it should be once."""

    identifier: str
    customer: str
    meter: str
    value: int
    times: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the check judges by.

    Attributes:
        confirmed: Messages that the broker confirmed.
        unconfirmed: Messages that may have arrived or not.
        events: The ledger's events.
        reports: The ledger's reports.
        profiles: The users that customer-provisioner knows.
        accounts: The customers of the users that the ledger can bill.
        dead_letters: The messages that wait for a person.
        meter_events: What Stripe accepted.
        sums: What Stripe counted, by customer and meter.
        customers: How many customers Stripe has of a user.
        queued: Messages that are ready in queues that should be empty in the end.
    """

    confirmed: Sequence[Message]
    unconfirmed: Sequence[Message]
    events: Sequence[LedgerEvent]
    reports: Sequence[Report]
    profiles: frozenset[UUID]
    accounts: Mapping[UUID, str]
    dead_letters: Sequence[DeadLetter]
    meter_events: Sequence[MeterEvent]
    sums: Mapping[tuple[str, str], int]
    customers: Mapping[UUID, int]
    queued: Mapping[str, int]
