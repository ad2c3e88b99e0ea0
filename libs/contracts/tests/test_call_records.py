"""The list by which the journal makes a restored ledger whole."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from nexus_contracts import (
    CallRecord,
    CallRecordsEnd,
    UnreadableError,
    UsageRecorded,
    read_call_record,
)

AT = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
RECORD = CallRecord(
    report=UsageRecorded(
        report_id=UUID(int=1),
        identifier="nexus:1",
        meter="tool_call_executed",
        value=12,
        stripe_customer_id="cus_1",
        dimensions={"tool_name": "forecast"},
        occurred_at=AT,
        event_count=12,
        claim_id=UUID(int=2),
    ),
    state="refused",
    started_at=AT,
    answered_at=AT,
    reason="no_such_customer",
    ever_unknown=False,
)


def test_a_line_is_read_as_it_was_written() -> None:
    """Ids, times to the microsecond, quantities and dimensions."""
    end = CallRecordsEnd(records=1, since=AT)

    assert read_call_record(RECORD.model_dump_json()) == RECORD
    assert read_call_record(end.model_dump_json()) == end


@pytest.mark.parametrize(
    "line",
    [
        "",
        "not json",
        "[]",
        '{"records": -1, "since": "2026-03-01T12:00:00Z"}',
        RECORD.model_dump_json().replace("refused", "secret"),
        RECORD.model_dump_json().replace('"value":12', '"value":"secret"'),
        RECORD.model_dump_json().replace('"tool_name":"', '"secret":"\\u0000'),
        RECORD.model_dump_json().replace("claim_id", "secret"),
        RECORD.model_dump_json()[:-20],
    ],
)
def test_invalid_line_is_refused_without_its_values(line: str) -> None:
    """What is wrong is named by field and rule."""
    with pytest.raises(UnreadableError) as error:
        read_call_record(line)

    assert "secret" not in str(error.value)
