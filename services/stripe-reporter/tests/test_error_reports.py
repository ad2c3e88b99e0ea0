"""What Stripe says of a meter's errors is read in every form that its pages show."""

import json
from typing import Any, Final

import pytest
from pydantic import ValidationError

from stripe_reporter.rejections import Sample
from stripe_reporter.stripe.error_reports import ErrorReportBody

CODE: Final = "meter_event_invalid_value"
EVENT: Final[dict[str, Any]] = {
    "id": "evt_test_1",
    "object": "v2.core.event",
    "type": "v1.billing.meter.error_report_triggered",
    "created": "2026-03-01T12:00:22.000Z",
    "livemode": False,
    "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
    "data": {
        "developer_message_summary": "There is 1 invalid event",
        "validation_start": "2026-03-01T12:00:10.000Z",
        "validation_end": "2026-03-01T12:00:20.000Z",
        "reason": {
            "error_count": 3,
            "error_types": [
                {
                    "code": CODE,
                    "error_count": 3,
                    "sample_errors": [
                        {"error_message": "no", "request": {"identifier": "nexus:r:1"}}
                    ],
                }
            ],
        },
    },
}


def test_samples_are_some_of_the_errors() -> None:
    """The count is of all."""
    report = ErrorReportBody.model_validate_json(_json(EVENT)).report()

    assert (report.meter_id, report.errors) == ("mtr_1", 3)
    assert report.samples == (Sample("nexus:r:1", CODE),)
    assert (report.end - report.start).total_seconds() == 10


@pytest.mark.parametrize("related", [None, {}])
def test_an_event_without_a_meter_has_samples_all_the_same(related: object) -> None:
    """Its related object is null or empty."""
    event = EVENT | {"type": "v1.billing.meter.no_meter_found", "related_object": related}

    report = ErrorReportBody.model_validate_json(_json(event)).report()

    assert (report.meter_id, len(report.samples)) == (None, 1)


def test_an_older_form_names_the_key_otherwise() -> None:
    """As an example on Stripe's pages does."""
    written = _json(EVENT).replace(
        '{"identifier": "nexus:r:1"}', '{"id": "req_1", "idempotency_key": "nexus:r:1"}'
    )

    assert ErrorReportBody.model_validate_json(written).report().samples[0].key == "nexus:r:1"


@pytest.mark.parametrize("request_", ["null", "{}", '{"identifier": null}'])
def test_a_sample_without_a_key_hides_no_other(request_: str) -> None:
    """Another sender may send no idempotency key; our request stands beside it."""
    ours = '{"error_message": "no", "request": {"identifier": "nexus:r:1"}}'
    written = _json(EVENT).replace(ours, f'{{"request": {request_}}}, {ours}')

    samples = ErrorReportBody.model_validate_json(written).report().samples

    assert samples == (Sample("", CODE), Sample("nexus:r:1", CODE))


@pytest.mark.parametrize(
    ("of_stripe", "of_another"),
    [
        (CODE, "two\\nlines"),
        ('"error_count": 3, "error_types"', '"error_count": -1, "error_types"'),
        ("error_report_triggered", "reactivated"),
    ],
)
def test_what_no_event_of_ours_can_carry_is_refused(of_stripe: str, of_another: str) -> None:
    """Such a code, stored, would keep every later rejection from being announced."""
    written = _json(EVENT)
    assert of_stripe in written

    with pytest.raises(ValidationError):
        ErrorReportBody.model_validate_json(written.replace(of_stripe, of_another))


def _json(event: dict[str, Any]) -> str:
    return json.dumps(event)
