"""A report and the state of its calls to Stripe: from the journal, for a restored ledger."""

from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError, field_validator
from pydantic_core import from_json

from nexus_contracts.errors import UnreadableError
from nexus_contracts.fields import Moment, Text
from nexus_contracts.usage_recorded import UsageRecordedV1
from nexus_contracts.wording import BrokenRule, broken_rules

_CONFIG: Final = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


class CallRecord(BaseModel):
    """One line of a list of calls.

    ``state`` is the journal's: ``accepted`` has been counted by Stripe, ``refused`` has not;
    ``calling`` and ``unknown`` may have been. ``reason`` is there if it was refused for good.
    ``rejected_later`` is Stripe's code if it was accepted, and then was not counted.
    """

    model_config = _CONFIG

    report: UsageRecordedV1
    state: Literal["calling", "unknown", "refused", "accepted"]
    started_at: Moment
    answered_at: Moment | None = None
    reason: Text | None = None
    ever_unknown: bool
    rejected_later: Text | None = None

    @field_validator("report")
    @classmethod
    def _require_claim(cls, report: UsageRecordedV1) -> UsageRecordedV1:
        if report.claim_id is None:
            raise ValueError("without its claim nobody can tell which events it sums up")
        return report

    @property
    def claim_id(self) -> UUID:
        """The claim that the report is of."""
        assert self.report.claim_id is not None
        return self.report.claim_id


class CallRecordsEnd(BaseModel):
    """The last line: without it, the list was cut off."""

    model_config = _CONFIG

    records: NonNegativeInt
    since: Moment


def read_call_record(line: str) -> CallRecord | CallRecordsEnd:
    """Read one line of a list of calls.

    Raises:
        UnreadableError: the line is neither; the text names fields and rules, and no value.
    """
    try:
        written = from_json(line)
    except ValueError:
        raise UnreadableError(BrokenRule("line", "is not JSON")) from None
    is_end = isinstance(written, dict) and "records" in written
    kind: type[CallRecord | CallRecordsEnd] = CallRecordsEnd if is_end else CallRecord
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise UnreadableError(*broken_rules(error)) from None
