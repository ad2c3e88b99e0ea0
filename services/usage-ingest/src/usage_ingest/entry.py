"""A tool run as rows of the ledger: their columns, their digests, its metadata. Pure."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from nexus_contracts import ToolExecutedV2
from nexus_contracts.envelope import may_have_nan
from nexus_messaging.tracing import sampled_traceparent
from usage_ingest.columns import Column
from usage_ingest.metering import (
    BillingRules,
    BillingState,
    Cost,
    ToolRun,
    cost_of,
    first_state,
    readings,
)
from usage_ingest.prices import price_id
from usage_ingest.windows import EPOCH


@dataclass(frozen=True, slots=True)
class EventColumn(Column):
    """A column of `usage_events` or of `usage_details`.

    A column that distinguishes events with the same id is part of the digest, from its version
    ``digested_from`` on.
    """

    digested_from: int | None = None


COLUMNS: Final = (
    EventColumn("event_id", "uuid", "event.id"),
    EventColumn("schema_version", "smallint", "schema_version"),
    EventColumn("source", "text", "event.source", digested_from=1),
    EventColumn("user_id", "uuid", "event.data.user_id", digested_from=1),
    EventColumn("server_id", "text", "event.data.server_id", digested_from=1),
    EventColumn("tool_name", "text", "event.data.tool_name", digested_from=1),
    EventColumn("origin", "text", "event.data.origin", digested_from=1),
    EventColumn("status", "text", "event.data.status", digested_from=1),
    EventColumn("occurred_at", "timestamptz", "event.time", digested_from=1),
    EventColumn("token_count", "bigint", "event.data.token_count", digested_from=1),
    EventColumn("metadata", "jsonb", "metadata"),
    EventColumn("metadata_left_out", "boolean", "metadata_left_out"),
    EventColumn("readings", "jsonb", "readings_json"),
    EventColumn("traceparent", "text", "traceparent"),
    EventColumn("digest", "bytea", "digest"),
    EventColumn("billing_state", "text", "state.value"),
)
"""What is stored of a run of any version, by the attributes of its ``Entry``.

The insert and the digests are made from this list. Columns of a digest keep their order, which is
that of the digest's values. A new field of ``ToolExecuted`` needs a line here and a migration;
tests name what is missing.
"""

DETAILS: Final = (
    EventColumn("event_id", "uuid", "event.id"),
    EventColumn("model", "text", "event.data.model", digested_from=1),
    EventColumn("input_tokens", "bigint", "event.data.input_tokens", digested_from=1),
    EventColumn("output_tokens", "bigint", "event.data.output_tokens", digested_from=1),
    EventColumn("cached_tokens", "bigint", "event.data.cached_tokens", digested_from=1),
    EventColumn("digest", "bytea", "details_digest"),
    EventColumn("price_id", "uuid", "price_id"),
)
"""What is stored of a run of version 2 in a row beside it: the fields that version 1 lacks."""

DIGEST_VERSION: Final = 2
"""The version of new digests. A digest is stored with its version, and versions never change.

Whatever changes the digest of an event, such as a column that becomes part of it, is a new version:
a repetition is compared by the version of the row that it meets. Version 2 differs from version 1
in the milliseconds of some times. These are versions of the digest, not of the event: every version
of `tool.executed` has the digest of what version 1 says.
"""

DETAILS_VERSION: Final = 1
"""The version of new digests of details, which are stored likewise."""


class UnknownDigestError(Exception):
    """A later release made a digest, with a version that this one does not have."""


class Entry(NamedTuple):
    """A tool run as the ledger keeps it: a tuple, which is made in a third of a dataclass's time.

    ``details_digest`` is ``None`` if the event is of a version without details. ``readings`` is
    what each meter or route reads for it. ``metadata`` is JSON text, or ``None``, with
    ``metadata_left_out`` if the run had some that can't be stored. ``traceparent`` is the context
    that a claim of the event is linked to. ``cost`` is that of its tokens, if a route counts them
    by it; it is among the readings unless it is unknown.
    """

    event: ToolRun
    digest: bytes
    details_digest: bytes | None
    readings: Mapping[str, int]
    metadata: str | None
    metadata_left_out: bool
    state: BillingState
    traceparent: str | None
    cost: Cost | None = None

    @classmethod
    def of(cls, event: ToolRun, rules: BillingRules, now: datetime) -> "Entry":
        """Assess ``event`` by ``rules`` at the time ``now``."""
        read = readings(event.data, rules)
        cost = None
        if read and rules.plans is not None:
            cost = cost_of(event.data, event.time, rules.plans)
            if cost is not None and (micro_usd := cost.micro_usd):
                read[cost.key] = micro_usd
        metadata = stored_metadata(event.data.metadata)
        return cls(
            event=event,
            digest=digest(event),
            details_digest=details_digest(event) if has_details(event) else None,
            readings=read,
            metadata=metadata,
            metadata_left_out=event.left_out
            or (event.data.metadata is not None and metadata is None),
            state=first_state(event.time, read, now),
            traceparent=sampled_traceparent(event.traceparent),
            cost=cost,
        )

    @property
    def price_id(self) -> UUID | None:
        """Return the id of the price that the run's tokens have."""
        return None if self.cost is None else price_id(self.cost.priced)

    @property
    def readings_json(self) -> str:
        """Return the readings as JSON."""
        return to_json(self.readings).decode()

    @property
    def schema_version(self) -> int:
        """Return the major version of the event."""
        return int(self.event.type.rpartition(".v")[2])


def has_details(event: ToolRun) -> bool:
    """Whether the event is of a version with details, though all of them may be null."""
    return isinstance(event.data, ToolExecutedV2)


def digest(event: ToolRun, version: int = DIGEST_VERSION) -> bytes:
    """Return the SHA-256 of what the event means for billing, as ``version`` has it.

    Two messages with the same id and the same digest are the same event. Metadata is not part of
    the digest, nor are digits of the time below the millisecond, which some publishers drop.

    Raises:
        UnknownDigestError: a later release made the version.
    """
    if version not in _DIGESTS:
        raise UnknownDigestError(f"version {version} of the digest")
    return _DIGESTS[version](event)


def details_digest(event: ToolRun, version: int = DETAILS_VERSION) -> bytes:
    """Return the SHA-256 of the details of an event that has them, as ``version`` has it.

    Raises:
        UnknownDigestError: a later release made the version.
    """
    if version not in _DETAILS_DIGESTS:
        raise UnknownDigestError(f"version {version} of the details' digest")
    return _DETAILS_DIGESTS[version](event)


_MILLISECOND: Final = timedelta(milliseconds=1)


def _milliseconds_by_float(moment: datetime) -> int:
    # A float is a millisecond short for hardly any time today, and for every fourth in 2038.
    return int(moment.timestamp() * 1000)


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // _MILLISECOND


def _digest_of(
    columns: Sequence[EventColumn],
    version: int,
    milliseconds: Callable[[datetime], int] = _milliseconds,
) -> Callable[[ToolRun], bytes]:
    digested = [each for each in columns if each.digested_from and each.digested_from <= version]
    values = attrgetter(*(each.value.removeprefix("event.") for each in digested))
    times = [place for place, each in enumerate(digested) if each.type == "timestamptz"]

    def digest_of(event: ToolRun) -> bytes:
        row = list(values(event))
        for place in times:
            row[place] = milliseconds(row[place])
        # For these types and for every text the same bytes as those of Python's encoder, which
        # the first digests were made with: `tests/test_digest.py`.
        return hashlib.sha256(to_json(row)).digest()

    return digest_of


_DIGESTS: Final = {
    1: _digest_of(COLUMNS, 1, _milliseconds_by_float),
    2: _digest_of(COLUMNS, 2),
}
_DETAILS_DIGESTS: Final = {1: _digest_of(DETAILS, 1)}

_ENCODER: Final = json.JSONEncoder(allow_nan=False)
_NULL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of a null character: an even number of backslashes before it."""


def stored_metadata(metadata: Mapping[str, Any] | None) -> str | None:
    """Return ``metadata`` as JSON text, or ``None`` if PostgreSQL can't store it as ``jsonb``.

    ``jsonb`` has no null characters and no numbers beyond a double
    (https://www.postgresql.org/docs/current/datatype-json.html).
    """
    if metadata is None:
        return None
    try:
        text = to_json(metadata)
        if may_have_nan(text):
            _ENCODER.encode(metadata)  # refuses NaN and infinities, and no words in strings
    except ValueError:
        return None
    # The expression looks at every character, so it comes last.
    if b"\\" in text and b"\\u0000" in text and _NULL.search(text):
        return None
    return text.decode()
