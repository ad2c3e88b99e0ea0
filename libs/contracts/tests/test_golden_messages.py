"""Messages once published must stay readable: queues, dead letters and outboxes still hold them.

A golden message is never edited. A new optional field gets a new file, a new major a new family.
"""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator

from nexus_contracts import ALL_EVENTS, EventData, read_event
from nexus_contracts.schemas import schema_of

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
KINDS = {data.TYPE: data for data in ALL_EVENTS}


def kind_of(message: Path) -> type[EventData]:
    """Return the data class a golden message is named for."""
    name, _, rest = message.name.partition(".v")
    return KINDS[f"{name}.v{rest.partition('.')[0]}"]


def is_kept(written: Any, read: Any) -> bool:
    """Return whether all that was read stands as it was written, unknown and null fields aside."""
    if isinstance(written, dict) and isinstance(read, dict):
        return all(name in written and is_kept(written[name], read[name]) for name in read)
    if isinstance(written, list) and isinstance(read, list):
        return len(written) == len(read) and all(map(is_kept, written, read))
    return bool(written == read) or is_same_uuid(written, read)


def is_same_uuid(written: Any, read: Any) -> bool:
    """Return whether both are the same UUID, which may be written in upper case."""
    try:
        return UUID(written) == UUID(read)
    except (AttributeError, TypeError, ValueError):
        return False


@pytest.mark.parametrize("message", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_message_is_readable(message: Path) -> None:
    """Its required fields are all read, and no value of it changes on the way."""
    event = read_event(message.read_bytes(), [kind_of(message)])

    written = json.loads(message.read_text(encoding="utf-8"))
    times = {
        "time",
        "occurred_at",
        "at",
        "created",
        "since",
        "period_start",
        "period_end",
        "trial_end",
        "cancel_at",
        "ended_at",
        "plan_since",
        "as_of",
        "began_at",
        "start",
        "end",
    }
    data = event.data.model_dump(mode="json", exclude_unset=True, exclude=times)
    assert is_kept(written["data"], data)
    assert is_kept([written["id"], written["source"]], [str(event.id), event.source])
    assert event.traceparent == written.get("traceparent")


@pytest.mark.parametrize("message", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_message_satisfies_its_published_schema(message: Path) -> None:
    """What outside services validate against says the same as what we read by."""
    schema = schema_of(kind_of(message))

    Draft202012Validator(schema).validate(json.loads(message.read_text(encoding="utf-8")))


def test_every_event_has_a_golden_message() -> None:
    """A new event or major without one would be free to change."""
    assert {kind_of(message) for message in GOLDEN} == set(ALL_EVENTS)
