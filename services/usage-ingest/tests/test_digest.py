"""When two messages with the same id are the same event: the digest, in each version."""

import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import Event, ToolExecuted, ToolExecutedV2
from nexus_contracts.fields import EARLIEST
from usage_ingest.entry import (
    DETAILS_VERSION,
    DIGEST_VERSION,
    UnknownDigestError,
    details_digest,
    digest,
)
from usage_ingest.metering import ToolRun
from usage_ingest.windows import EPOCH

NAMES = st.text(st.sampled_from('ab",[]\\ é'), min_size=1, max_size=4)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def run(time: datetime = NOON, event_id: UUID | None = None, **changes: Any) -> ToolRun:
    """Return one certain tool run, with ``changes``."""
    fields: dict[str, Any] = {
        "user_id": UUID(int=1),
        "server_id": "weather",
        "tool_name": "forecast",
        "origin": "hub",
        "status": "succeeded",
        "token_count": 5,
    }
    source = changes.pop("source", "test/hub")
    data = ToolExecuted(**{**fields, **changes})
    return Event.of(data, source=source, id=event_id or uuid4(), time=time)


def detailed_run(**details: Any) -> ToolRun:
    """Return the same run in version 2."""
    first = run()
    data = ToolExecutedV2(**first.data.model_dump(), **details)
    return Event.of(data, source=first.source, id=first.id, time=first.time)


def test_metadata_id_and_microseconds_are_not_in_the_digest() -> None:
    """The digest is of what is billed, not of the body."""
    first = run(NOON + timedelta(microseconds=123_456), metadata={"a": 1})
    again = run(NOON + timedelta(microseconds=123_000), metadata={"b": [2]})

    assert digest(first) == digest(again)


SHORT = datetime(2038, 6, 10, 22, 9, 31, 345_000, tzinfo=UTC)
"""A time that a float of seconds is a millisecond short of."""

OLD_DIGESTS = (
    (
        {"time": NOON + timedelta(milliseconds=1)},
        "8815f72a3a10a9b40e3574ff74ba72ed86eaf7592039c0561026e9f59196fc6a",
    ),
    (
        {"tool_name": 'é"\\', "token_count": None, "status": "failed"},
        "d050a1f7947e81afb1c3435152233874e6d47ef02628d60223623185c3e88d01",
    ),
    ({"time": SHORT}, "38e8f934240935e71804b72278de681d1769350917389801a3894ddc9de8a0d3"),
)
"""Digests that the release with only version 1 made."""

EVERY_CHARACTER = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))
"""All but the halves of surrogate pairs, which are no text."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
QUANTITIES = st.none() | st.integers(0, 10**15)
TIMES = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the time zone
    datetime(9998, 12, 30),  # noqa: DTZ001 - likewise
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(minutes=-1))]),
)

MINUTES = st.integers(0, 60 * 24 * 365 * 90)


@given(minutes=MINUTES, milliseconds=st.integers(0, 59_999), below=st.integers(0, 999))
def test_digits_below_the_millisecond_never_change_the_digest(
    minutes: int, milliseconds: int, below: int
) -> None:
    """From 1970 to 2060; by a float of seconds every fourth would change in 2038."""
    whole = EARLIEST + timedelta(minutes=minutes, milliseconds=milliseconds)

    assert digest(run(whole)) == digest(run(whole + timedelta(microseconds=below)))
    assert digest(run(whole)) != digest(run(whole + timedelta(milliseconds=1)))


@pytest.mark.parametrize(("event_fields", "old"), OLD_DIGESTS)
def test_digest_of_version_1_never_changes(event_fields: dict[str, Any], old: str) -> None:
    """Such digests are in ledgers, and the events may come again at any time."""
    assert digest(run(**event_fields), 1).hex() == old


def first_encoding(*values: object) -> bytes:
    """Return the digest of ``values`` as the first release made it."""
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(encoder.encode(values).encode()).digest()


def unchecked_run(data: dict[str, Any], **envelope: Any) -> ToolRun:
    """Return a run whose texts keep no rule of the contract."""
    kind = ToolExecutedV2.model_construct(**data)
    return Event[ToolExecuted].model_construct(data=kind, type="tool.executed.v2", **envelope)


def pieces(size: int = 1000) -> Iterator[str]:
    """Yield texts that together have every character."""
    for at in range(0, len(EVERY_CHARACTER), size):
        yield EVERY_CHARACTER[at : at + size]


@given(
    texts=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    user=st.uuids(),
    time=TIMES,
    tokens=st.tuples(QUANTITIES, QUANTITIES, QUANTITIES, QUANTITIES),
)
def test_digests_are_those_of_the_first_encoder(
    texts: tuple[str, ...], user: UUID, time: datetime, tokens: tuple[int | None, ...]
) -> None:
    """Digests in ledgers were made by Python's `json`: any text, number and time is encoded so."""
    source, server, tool, origin, status, model = texts
    total, read, written, cached = tokens
    event = unchecked_run(
        {
            "user_id": user,
            "server_id": server,
            "tool_name": tool,
            "origin": origin,
            "status": status,
            "token_count": total,
            "model": model,
            "input_tokens": read,
            "output_tokens": written,
            "cached_tokens": cached,
        },
        source=source,
        time=time,
    )

    by_float, exact = int(time.timestamp() * 1000), (time - EPOCH) // timedelta(milliseconds=1)
    before = (source, user, server, tool, origin, status)
    assert digest(event, 1) == first_encoding(*before, by_float, total)
    assert digest(event, 2) == first_encoding(*before, exact, total)
    assert details_digest(event, 1) == first_encoding(model, read, written, cached)


def test_every_character_is_encoded_as_by_the_first_encoder() -> None:
    """Control characters, the delete character, line separators, and those beyond the BMP."""
    for text in pieces():
        details = {"model": text, "input_tokens": 0, "output_tokens": None, "cached_tokens": 1}
        assert details_digest(unchecked_run(details)) == first_encoding(text, 0, None, 1)


def test_version_1_differs_by_microseconds_in_2038() -> None:
    """This is why there is version 2; events of today have the same digest in both."""
    whole, exact = run(SHORT), run(SHORT + timedelta(microseconds=999))

    assert digest(whole, 1) != digest(exact, 1)
    assert digest(whole, 2) == digest(exact, 2)
    assert digest(run(), 1) == digest(run(), 2)


def test_version_of_a_later_release_is_an_error() -> None:
    """Nothing can be compared by it."""
    with pytest.raises(UnknownDigestError):
        digest(run(), DIGEST_VERSION + 1)
    with pytest.raises(UnknownDigestError):
        details_digest(detailed_run(), DETAILS_VERSION + 1)


def test_both_versions_of_a_run_have_one_digest() -> None:
    """It is of what version 1 says, so that they can be compared; the details have their own."""
    assert digest(detailed_run(model="large", input_tokens=9)) == digest(run())


@pytest.mark.parametrize(
    ("details", "old"),
    [
        ({}, "6cd8cec706fa11110d83fb46f97df1f9be43b4c570f3390e7c7f6a5173f595e6"),
        (
            {"model": 'é"', "input_tokens": 7, "output_tokens": 0, "cached_tokens": 10**10},
            "5954e8b6b38c59503287732ef59e6598a710ec9e4878f302cdd94fc028597241",
        ),
    ],
    ids=["none", "all"],
)
def test_digest_of_details_of_version_1_never_changes(details: dict[str, Any], old: str) -> None:
    """Such digests are in ledgers, and the events may come again at any time."""
    assert details_digest(detailed_run(**details), 1).hex() == old


@pytest.mark.parametrize(
    "change",
    [{"model": "small"}, {"input_tokens": 8}, {"output_tokens": 8}, {"cached_tokens": 8}],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("value", ["null", "another"])
def test_any_change_of_a_detail_changes_the_digest_of_details(
    change: dict[str, Any], value: str
) -> None:
    """A detail that is null differs from one that is not."""
    first = {"model": "large", "input_tokens": 7, "output_tokens": 7, "cached_tokens": 7}
    changed = change if value == "another" else dict.fromkeys(change)

    assert details_digest(detailed_run(**first | changed)) != details_digest(detailed_run(**first))


@pytest.mark.parametrize(
    "change",
    [
        {"source": "other/hub"},
        {"user_id": UUID(int=2)},
        {"server_id": "weather2"},
        {"tool_name": "radar"},
        {"origin": "job"},
        {"status": "failed"},
        {"token_count": 6},
        {"token_count": None},
        {"time": NOON + timedelta(milliseconds=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_of_a_billed_field_changes_the_digest(change: dict[str, Any]) -> None:
    """The time counts down to the millisecond."""
    assert digest(run(**change)) != digest(run())


@given(
    first=st.tuples(NAMES, NAMES),
    second=st.tuples(NAMES, NAMES),
)
def test_neighbouring_fields_are_kept_apart(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    """Two pairs of names have one digest only if both names are equal."""
    one = run(server_id=first[0], tool_name=first[1])
    other = run(server_id=second[0], tool_name=second[1])

    assert (digest(one) == digest(other)) is (first == second)
