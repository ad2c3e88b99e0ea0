"""What can be wrong with the key, the clock and the meters, checked before reports are sent."""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from nexus_service.checking import Check
from nexus_stripe.answer_classes import FORBIDDEN, Effect
from nexus_stripe.answers import StripeAnswer
from nexus_stripe.meters import DISPLAY_NAME, Meter, active_meter, differences
from stripe_reporter.settings import StripeSettings
from stripe_reporter.stripe.api import StripeApi, stripe_api
from stripe_reporter.stripe.responses import describe, response_to

MAX_SKEW_SECONDS: Final = 60.0
"""Seconds between our clock and Stripe's. Events more than five minutes ahead are refused."""

ANY_HOUR: Final = datetime(2026, 1, 1, tzinfo=UTC)

Listing = tuple[StripeAnswer, list[Meter]]


class StripeChecks:
    """Lists the meters once; each check reads that one answer."""

    def __init__(self, settings: StripeSettings) -> None:
        self._settings = settings
        self._listing: Listing | None = None

    def all(self) -> dict[str, Check]:
        """Return the checks by name; the names say which mode the key is for."""
        mode = "live" if self._settings.live else "test"
        checks: dict[str, Check] = {f"stripe key ({mode} mode)": self._key, "clock": self._clock}
        for event_name in self._settings.meters:
            checks[f"meter {event_name}"] = self._meter(event_name)
        return checks

    async def _list(self) -> Listing:
        if self._listing is None:
            async with stripe_api(self._settings) as stripe:
                self._listing = await stripe.active_meters()
        return self._listing

    async def _key(self) -> str | None:
        answer, _ = await self._list()
        return call_fault(answer)

    async def _clock(self) -> str | None:
        answer, _ = await self._list()
        return skew(answer.date, time.time())

    def _meter(self, event_name: str) -> Check:
        async def check() -> str | None:
            answer, active = await self._list()
            return fault(event_name, active) if call_fault(answer) is None else "not checked"

        return check


def rights(settings: StripeSettings) -> dict[str, Check]:
    """Return the checks of the rights without which reports are sent, and nothing is heard of them.

    Each asks for what is not there: a key with the right gets a 404.
    """

    async def sums(stripe: StripeApi) -> StripeAnswer:
        until = ANY_HOUR + timedelta(hours=1)
        answer, _ = await stripe.hourly_sums("mtr_check", "cus_check", ANY_HOUR, until)
        return answer

    async def events(stripe: StripeApi) -> StripeAnswer:
        answer, _ = await stripe.error_report("evt_check")
        return answer

    def right(
        name: str, without: str, ask: Callable[[StripeApi], Awaitable[StripeAnswer]]
    ) -> Check:
        async def check() -> str | None:
            async with stripe_api(settings) as stripe:
                return right_missing(await ask(stripe), name, without)

        return check

    return {
        "Stripe's sums": right(
            "read billing meters and their event summaries", "nothing is compared with them", sums
        ),
        "Stripe's events": right(
            "read events", "what Stripe rejects later is seen in its sums alone", events
        ),
    }


def right_missing(answer: StripeAnswer, name: str, without: str) -> str | None:
    """Return what an answer to a request for what is not there says of a right of the key."""
    if response_to(answer).to is FORBIDDEN:
        return f"the key lacks the right to {name}: {without}"
    return None if answer.status in (400, 404) else f"not checked: {describe(answer)}"


async def ensure_meters(settings: StripeSettings) -> dict[str, str | None]:
    """Create the meters that are missing; return what is wrong with each afterwards.

    A meter that differs is left as it is: Stripe can't change it, and replacing it splits its sums.
    """
    async with stripe_api(settings) as stripe:
        return {name: await _ensure(stripe, settings, name) for name in settings.meters}


async def _ensure(stripe: StripeApi, settings: StripeSettings, event_name: str) -> str | None:
    answer, active = await stripe.active_meters()
    if call_fault(answer) is None and active_meter(event_name, active) is None:
        title = display_name(event_name, settings.stripe_meter_event_name)
        answer = await stripe.create_meter(Meter(event_name), title)
        # Another process may have created it meanwhile, so what is listed now counts.
        _, active = await stripe.active_meters()
        if fault(event_name, active) is None:
            return None
    return call_fault(answer) or fault(event_name, active)


def fault(event_name: str, active: Sequence[Meter]) -> str | None:
    """Return what is wrong with the meter of ``event_name`` among the ``active`` ones."""
    found = active_meter(event_name, active)
    if found is None:
        return "not found: run 'stripe-reporter meters ensure'"
    return differences(found)


def display_name(event_name: str, main: str) -> str:
    """Return what people see in Stripe's dashboard; ``main`` is the meter of tool calls."""
    return DISPLAY_NAME if event_name == main else f"{DISPLAY_NAME}: {event_name}"


def skew(stripe: float | None, ours: float) -> str | None:
    """Return how far our clock is from Stripe's if that is too far; both in unix seconds."""
    if stripe is None:
        return "Stripe did not say its time"
    return (
        f"{ours - stripe:+.0f} s from Stripe's" if abs(ours - stripe) > MAX_SKEW_SECONDS else None
    )


def call_fault(answer: StripeAnswer) -> str | None:
    """Return what ``answer`` says is wrong, or None after a success."""
    return None if response_to(answer).effect is Effect.APPLIED else describe(answer)
