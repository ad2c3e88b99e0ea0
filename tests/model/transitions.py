"""Every state of an event, a report, a journal row, a user and a change, and every move of theirs.

The one home of this table: `docs/states.md` is made from it, and the machine compares each move of
the databases with it; `tests/integration/customer_provisioner/test_orders.py` those of users and
their changes. The services do not use it: their statements move rows in sets, each from
the states that its own ``WHERE`` names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Cause(StrEnum):
    """The piece of work that makes a move; each is one transaction."""

    RECORDED = "recorded"
    PROVISIONED = "customer provisioned"
    ASSIGNED = "user assigned"
    SWEPT = "swept"
    CLAIMED = "claimed"
    FORWARDED = "forwarded"
    ANSWERED = "answered"
    CALLED = "claimed for a call"
    HEARD = "Stripe answered"
    LATER = "Stripe said later"
    SETTLED = "settled by hand"
    CREATED = "user.created"
    UPDATED = "user.updated"
    STRIPE = "Stripe's answer"
    STORED = "customer stored"
    OPERATOR = "an operator"


@dataclass(frozen=True, slots=True)
class Move:
    """A row of the table; ``before`` is empty where the row is inserted."""

    before: str
    after: str
    cause: Cause
    when: str


EVENT: Final = (
    Move("", "waiting", Cause.RECORDED, "its account's customer is not known yet"),
    Move("", "due", Cause.RECORDED, "its account's customer is known"),
    Move("", "not_billable", Cause.RECORDED, "no meter reads anything for it"),
    Move("", "expired", Cause.RECORDED, "it came at an age of 35 days or more"),
    Move("waiting", "due", Cause.PROVISIONED, "its account's customer became known"),
    Move("waiting", "due", Cause.ASSIGNED, "it is another account's now, which has a customer"),
    Move(
        "waiting",
        "due",
        Cause.SWEPT,
        "it was recorded, or waited again, while its account or customer became known",
    ),
    Move("waiting", "expired", Cause.SWEPT, "35 days passed without a customer"),
    Move("due", "expired", Cause.SWEPT, "35 days passed before it was claimed"),
    Move("due", "claimed", Cause.CLAIMED, "its window has closed"),
    Move("due", "waiting", Cause.CLAIMED, "it is another account's now, which has no customer"),
)

REPORT: Final = (
    Move("", "pending", Cause.CLAIMED, "it sums up one meter of a claim"),
    Move("", "shadow", Cause.CLAIMED, "likewise, of usage before `REPORTING_LIVE_FROM`"),
    Move("", "pending", Cause.SWEPT, "it replaces one that was refused for a deleted customer"),
    Move("pending", "forwarded", Cause.FORWARDED, "the broker has confirmed it"),
    Move("pending", "reported", Cause.ANSWERED, "Stripe counted it; the answer overtook the mark"),
    Move("pending", "rejected", Cause.ANSWERED, "Stripe refused it; the answer overtook the mark"),
    Move("forwarded", "reported", Cause.ANSWERED, "Stripe counted it"),
    Move(
        "forwarded",
        "rejected",
        Cause.ANSWERED,
        "Stripe refused it, or never counted it, as a person found",
    ),
    Move("rejected", "reported", Cause.ANSWERED, "moved by an operator, and counted"),
    Move("rejected", "rejected", Cause.ANSWERED, "moved by an operator, and refused again"),
    Move("rejected", "superseded", Cause.SWEPT, "its customer was deleted and there is a new one"),
    Move(
        "reported",
        "rejected_later",
        Cause.ANSWERED,
        "Stripe does not count it after all, as it said later",
    ),
    Move("pending", "rejected_later", Cause.ANSWERED, "likewise; it overtook mark and answer"),
    Move("forwarded", "rejected_later", Cause.ANSWERED, "likewise; it overtook the answer"),
    Move(
        "rejected",
        "rejected_later",
        Cause.ANSWERED,
        "moved by an operator, counted, and then likewise; it overtook the answer",
    ),
)

CALL: Final = (
    Move("", "calling", Cause.CALLED, "its first call"),
    Move("calling", "accepted", Cause.HEARD, "counted"),
    Move("calling", "refused", Cause.HEARD, "not counted, and no outcome is open"),
    Move(
        "calling",
        "unknown",
        Cause.HEARD,
        "no answer, or a refusal while an earlier outcome is open",
    ),
    Move("calling", "calling", Cause.CALLED, "the caller was lost for more than 20 seconds"),
    Move("unknown", "calling", Cause.CALLED, "again, within 23 hours"),
    Move("refused", "calling", Cause.CALLED, "again, before it is 35 days old"),
    Move("unknown", "accepted", Cause.HEARD, "an earlier call's answer came late: counted"),
    Move("unknown", "accepted", Cause.SETTLED, "found or made at Stripe by a person"),
    Move("calling", "accepted", Cause.SETTLED, "fenced, and found or made at Stripe by a person"),
    Move(
        "unknown", "refused", Cause.SETTLED, "found not to be counted, its customer being deleted"
    ),
    Move(
        "calling", "refused", Cause.SETTLED, "found not to be counted, its customer being deleted"
    ),
    Move(
        "accepted",
        "rejected_later",
        Cause.LATER,
        "its acceptance rests on an attempt that Stripe does not count",
    ),
)

USER: Final = (
    Move("", "provisioning", Cause.CREATED, "it names no customer"),
    Move("", "linking", Cause.CREATED, "it names a customer that exists at Stripe"),
    Move("provisioning", "linking", Cause.CREATED, "a later one names a customer"),
    Move("provisioning", "provisioned", Cause.STRIPE, "the customer was created or found"),
    Move("provisioning", "refused", Cause.STRIPE, "it refuses the customer"),
    Move("linking", "provisioned", Cause.STRIPE, "linked, or an open creation had made another"),
    Move("linking", "refused", Cause.STRIPE, "the customer is foreign"),
    Move("refused", "provisioning", Cause.STRIPE, "tried again: the look-up finds no customer"),
    Move("refused", "provisioning", Cause.UPDATED, "it has another address"),
    Move("refused", "provisioning", Cause.OPERATOR, "`reprovision` gives up the link"),
    Move("refused", "linking", Cause.STRIPE, "tried again: the look-up finds no customer"),
    Move("refused", "provisioned", Cause.STRIPE, "tried again: the look-up finds a customer"),
    Move("provisioned", "provisioning", Cause.OPERATOR, "`reprovision`: the next generation"),
    Move("provisioned", "linking", Cause.OPERATOR, "`link --replace`: the next generation"),
)

CHANGE: Final = (
    Move("", "sent", Cause.UPDATED, "the row is made"),
    Move("sent", "waiting", Cause.UPDATED, "a value is new"),
    Move("waiting", "sent", Cause.STRIPE, "the customer has it"),
    Move("waiting", "refused", Cause.STRIPE, "it refuses the value, or the customer is deleted"),
    Move("sent", "waiting", Cause.STORED, "a new customer was created with the first address"),
    Move("refused", "waiting", Cause.UPDATED, "a value is new"),
    Move("refused", "waiting", Cause.STORED, "the new customer may take it"),
    Move("refused", "sent", Cause.STRIPE, "tried again: the customer has it"),
)

TABLES: Final[Mapping[str, tuple[str, str, tuple[Move, ...]]]] = {
    "usage_events": ("An event", "billing_state", EVENT),
    "usage_reports": ("A report", "state", REPORT),
    "meter_calls": ("A report's row in the journal", "state", CALL),
}
"""By table: what it holds, the column of its states, and their moves."""

MARK: Final = "rejected_later"
"""In the journal a mark beside the state ``accepted``, which the previous release reads."""


_CHANGE_STATE: Final = """\
CASE WHEN waiting_since IS NULL THEN 'sent' WHEN refused_as IS NULL THEN 'waiting' ELSE 'refused'
 END"""

PROVISIONING: Final[Mapping[str, tuple[str, str, tuple[Move, ...]]]] = {
    "user_profiles": (
        "A user",
        "CASE WHEN refused_as IS NULL THEN state ELSE 'refused' END",
        USER,
    ),
    "user_changes": (
        "What changed about a user",
        _CHANGE_STATE,
        CHANGE,
    ),
}
"""Likewise, with an expression in place of the column."""


def states(moves: tuple[Move, ...]) -> set[str]:
    """Return every state that ``moves`` lead to."""
    return {move.after for move in moves}


def markdown() -> Iterator[str]:
    """Yield the lines of the diagrams and tables for people to read."""
    for table, (what, column, moves) in TABLES.items():
        yield f"## {what} (`{table}.{column}`)\n"
        yield from _section(moves)
    for table, (what, _, moves) in PROVISIONING.items():
        yield f"## {what} (`{table}`)\n"
        yield from _section(moves)


def _section(moves: tuple[Move, ...]) -> Iterator[str]:
    yield from _diagram(moves)
    yield ""
    yield "| from | to | moved by | when |"
    yield "|---|---|---|---|"
    for move in moves:
        before = f"`{move.before}`" if move.before else ""
        yield f"| {before} | `{move.after}` | {move.cause} | {move.when} |"
    yield ""


def _diagram(moves: tuple[Move, ...]) -> Iterator[str]:
    causes: dict[tuple[str, str], list[str]] = {}
    for move in moves:
        causes.setdefault((move.before, move.after), []).append(move.cause)
    yield "```mermaid"
    yield "stateDiagram-v2"
    for (before, after), by in causes.items():
        yield f"    {before or '[*]'} --> {after}: {', '.join(by)}"
    left = {before for before, after in causes if before != after}
    for end in sorted(states(moves) - left):
        yield f"    {end} --> [*]"
    yield "```"
