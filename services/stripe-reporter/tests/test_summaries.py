"""Stripe's sums of hours are read strictly: others than those asked for were not made by Stripe."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from stripe_reporter.stripe.summaries import SummaryBody, hours_of

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
END: Final = START + timedelta(days=4)


def summary(start: datetime, value: float = 5.0) -> SummaryBody:
    """Return an hour's sum as Stripe has it."""
    return SummaryBody(
        id="mtrusg_1",
        object="billing.meter_event_summary",
        aggregated_value=value,
        start_time=int(start.timestamp()),
    )


def test_hours_may_have_any_sum() -> None:
    """Other senders may send fractions and take usage back."""
    values = [1e308, -5.0, 0.25, -0.0]
    hours = hours_of(
        [summary(START + place * timedelta(hours=1), each) for place, each in enumerate(values)],
        START,
        END,
    )

    assert [each.value for each in hours] == values


@pytest.mark.parametrize(
    "starts",
    [
        [START - timedelta(hours=1)],
        [END],
        [START, START],
        [START + timedelta(minutes=1)],
    ],
)
def test_hours_that_were_not_asked_for_are_refused(starts: list[datetime]) -> None:
    """Before, after, twice, or no whole hour: nothing of such an answer is published."""
    with pytest.raises(ValueError, match="hour"):
        hours_of([summary(start) for start in starts], START, END)
