"""The final comparison of every run of the platform: ledger, reports and Stripe agree."""

from typing import Final

from support.platform import Platform

REPORTED: Final = """
SELECT stripe_customer_id, sum(value)::int FROM usage_reports WHERE state = 'reported' GROUP BY 1
"""
EVENTS_REPORTED: Final = """
SELECT r.stripe_customer_id, count(*)::int
  FROM usage_events e JOIN usage_reports r USING (claim_id) WHERE r.state = 'reported' GROUP BY 1
"""


async def assert_counted_once(platform: Platform, runs: int) -> None:
    """Compare the sums of Stripe, the reports and the events by customer; ``runs`` in all."""
    reported = {row[0]: row[1] for row in await platform.rows("usage_ingest", REPORTED)}
    events = {row[0]: row[1] for row in await platform.rows("usage_ingest", EVENTS_REPORTED)}
    async with platform.stripe() as stripe:
        sums = {row["customer"]: int(row["value"]) for row in await stripe.sums()}
        attempts = await stripe.attempts()
    assert sums == reported == events
    assert sum(sums.values()) == runs
    assert max(each["accepted"] for each in attempts.values()) == 1
