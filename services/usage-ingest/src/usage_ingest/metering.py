"""What one tool run is worth: a pure decision from event to meter readings."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from nexus_contracts import Event, ToolExecuted
from usage_ingest.windows import EPOCH

FUTURE_TOLERANCE: Final = timedelta(minutes=5)
"""Stripe takes meter events up to five minutes ahead of its clock."""

OLDEST_REPORTABLE: Final = timedelta(days=35)
"""Stripe takes meter events up to 35 days old."""

DIGEST_VERSION: Final = 2
"""Of the digests that are made now; a digest is stored with its version, for ever.

Whatever changes the digest of an event that came before, such as a field that becomes part of its
meaning, is a new version, and the older ones stay as they are: a repetition is compared by the
version of the row it meets. A release that meets a version it does not know leaves the repetition
to one that does.
"""

ToolRun = Event[ToolExecuted]


class BillingState(StrEnum):
    """Where an event stands between its record and its report."""

    WAITING = "waiting"
    DUE = "due"
    CLAIMED = "claimed"
    NOT_BILLABLE = "not_billable"
    EXPIRED = "expired"


class UnknownDigestError(Exception):
    """A digest was made by a later release: nobody here can tell what it is of."""


@dataclass(frozen=True, slots=True)
class BillingRules:
    """Which runs are billed, and on which meters."""

    runs_meter: str
    tokens_meter: str | None
    billable_statuses: frozenset[str]

    @property
    def meters(self) -> tuple[str, ...]:
        """Return the meters that anything can be read for."""
        return (self.runs_meter, *([self.tokens_meter] if self.tokens_meter else []))


def readings(run: ToolExecuted, rules: BillingRules) -> Mapping[str, int]:
    """Return what each meter reads for this run; meters that read zero are left out."""
    if run.status not in rules.billable_statuses:
        return {}
    read = {rules.runs_meter: 1}
    if rules.tokens_meter is not None and run.token_count:
        read[rules.tokens_meter] = run.token_count
    return read


def first_state(occurred_at: datetime, read: Mapping[str, int], now: datetime) -> BillingState:
    """Return the state an event is recorded in, as if its customer were not known yet."""
    if not read:
        return BillingState.NOT_BILLABLE
    if now - occurred_at >= OLDEST_REPORTABLE:
        return BillingState.EXPIRED
    return BillingState.WAITING


def is_from_the_future(occurred_at: datetime, now: datetime) -> bool:
    """Whether an event claims a time so far ahead that its producer's clock must be wrong."""
    return occurred_at - now > FUTURE_TOLERANCE


def digest(event: ToolRun, version: int = DIGEST_VERSION) -> bytes:
    """Return the SHA-256 of what the event means for billing, as ``version`` takes it.

    Two messages with one id and one digest are the same fact told twice. Free-form metadata is no
    part of it, nor are digits of time below the millisecond, which some publishers drop.

    Raises:
        UnknownDigestError: a later release made that version.
    """
    if version not in _MILLISECONDS:
        raise UnknownDigestError(f"version {version} of the digest")
    run = event.data
    meaning = [
        event.source,
        str(run.user_id),
        run.server_id,
        run.tool_name,
        run.origin,
        run.status,
        _MILLISECONDS[version](event.time),
        run.token_count,
    ]
    text = json.dumps(meaning, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _rounded(moment: datetime) -> int:
    # Through a float, which falls short of hardly any millisecond today, of every fourth in 2038.
    return int(moment.astimezone(UTC).timestamp() * 1000)


def _exact(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


_MILLISECONDS: Final[Mapping[int, Callable[[datetime], int]]] = {
    1: _rounded,
    DIGEST_VERSION: _exact,
}
