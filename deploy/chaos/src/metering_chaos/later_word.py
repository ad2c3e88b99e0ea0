"""Stripe's later word: not all that was accepted is counted, and the sums say so a day later."""

import asyncio
from typing import Any, Final

import aiohttp

from metering_chaos.environment import Environment
from metering_chaos.plan import REPORTER

REJECTED_AFTER_SECONDS: Final = 15.0
REPORT_SECONDS: Final = 2.0
SUMMARY_DELAY_SECONDS: Final = 20.0
"""Less than the lag that the services are set to."""

ERROR_REPORTS: Final = "v1.billing.meter."
WEBHOOK_FAULTS: Final = (("lost", 0.1), ("late", 0.3), ("twice", 0.4), ("shuffled", 1.0))
"""What becomes of the webhooks of error reports; the first that applies."""

WEBHOOK_SECONDS: Final = 8.0
DAY_SECONDS: Final = 86_400.0
READ_SECONDS: Final = 300.0
POLL_SECONDS: Final = 1.0

FOLLOWED: Final = """
SELECT (SELECT answered_at FROM summaries_place)
       >= (SELECT coalesce(max(answered_at), '-infinity') FROM meter_calls)
"""
NOW: Final = "SELECT clock_timestamp()"
# The second condition spares what is just being read, for which it is leased.
DUE: Final = """
UPDATE summaries_due SET next_try = clock_timestamp()
 WHERE coalesce(read_at, '-infinity') < $1
   AND next_try > clock_timestamp() + make_interval(mins => $2)
"""
MAX_LEASE_MINUTES: Final = 20
UNREAD: Final = "SELECT count(*) FROM summaries_due WHERE coalesce(read_at, '-infinity') < $1"


async def leave_uncounted(environment: Environment, share: float) -> None:
    """Let Stripe drop a half of ``share`` of what it accepts, and reject the other half later.

    Half of what is rejected is named in an error report, whose webhook comes late, twice, out of
    order or never.
    """
    stripe = environment.stripe
    await stripe.set_options(
        error_report_seconds=REPORT_SECONDS, summary_delay_seconds=SUMMARY_DELAY_SECONDS
    )
    for kind, probability in WEBHOOK_FAULTS:
        await stripe.add_webhook_fault(
            kind,
            probability=probability,
            seconds=WEBHOOK_SECONDS,
            times=None,
            type_prefix=ERROR_REPORTS,
        )
    if share:
        every: dict[str, Any] = {"probability": share / 2, "times": None}
        await stripe.add_event_fault("dropped", **every)
        await stripe.add_event_fault(
            "rejected", sampled=0.5, seconds=REJECTED_AFTER_SECONDS, **every
        )


async def pass_a_day(environment: Environment) -> None:
    """Advance Stripe's clock by a day, and have the reporter read all sums again, as it does daily.

    The services' clocks are real: their daily readings are made due in their table instead.

    Raises:
        TimeoutError: not all was read in time.
    """
    await environment.stripe.advance_clock(DAY_SECONDS)
    async with asyncio.timeout(READ_SECONDS), environment.database(REPORTER) as journal:
        # An answer is followed a minute after it came.
        while not await journal.fetchval(FOLLOWED):  # noqa: ASYNC110 - the table says nothing
            await asyncio.sleep(POLL_SECONDS)
        began = await journal.fetchval(NOW)
        await journal.execute(DUE, began, 0)
        while unread := await journal.fetchval(UNREAD, began):
            environment.say(f"a day later: {unread} customers and meters are to be read")
            await asyncio.sleep(POLL_SECONDS)
            await journal.execute(DUE, began, MAX_LEASE_MINUTES)


async def rejected_identifiers(environment: Environment) -> frozenset[str]:
    """Return the identifiers that the error reports name which reached stripe-reporter.

    A sample names a request by its idempotency key: the report's identifier and a number.
    """
    stack = environment.stack
    headers = {"Authorization": f"Bearer {stack.stripe_key}"}
    named: set[str] = set()
    async with aiohttp.ClientSession(
        stack.emulator.url, headers=headers, raise_for_status=True
    ) as session:
        # customer-provisioner gets them as well, and leaves them alone.
        async with session.get("/v1/webhook_endpoints") as answer:
            urls = {each["id"]: each["url"] for each in (await answer.json())["data"]}
        taken = {
            each["event"]
            for each in await environment.stripe.webhooks()
            if each["state"] == "delivered"
            and each["type"].startswith(ERROR_REPORTS)
            and urls[each["endpoint"]].startswith(f"{stack.services[REPORTER].url}/")
        }
        for event in taken:
            async with session.get(f"/v2/core/events/{event}") as answer:
                reason = (await answer.json())["data"]["reason"]
            named |= {
                sample["request"]["identifier"].rpartition(":")[0]
                for error in reason["error_types"]
                for sample in error["sample_errors"]
            }
    return frozenset(named)
