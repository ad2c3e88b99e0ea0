"""The calls to Stripe that this service makes; each ends in an answer."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import stripe
from stripe.params.billing import MeterEventCreateParams

from nexus_contracts import CountedHour
from nexus_messaging.tracing import NO_ATTRIBUTES, Attributes, call_span
from nexus_stripe.answer_classes import Effect
from nexus_stripe.answers import StripeAnswer
from nexus_stripe.bodies import Body, Page, every_item, read
from nexus_stripe.calls import StripeHttp, ask, stripe_client
from nexus_stripe.meter_bodies import MeterBody, list_active_meters, list_meters
from nexus_stripe.meters import Meter
from stripe_reporter.rejections import ErrorReport
from stripe_reporter.reports import Report, idempotency_key
from stripe_reporter.settings import StripeSettings
from stripe_reporter.stripe.error_reports import ErrorReportBody
from stripe_reporter.stripe.responses import response_to
from stripe_reporter.stripe.summaries import SummaryBody, hours_of

METER_EVENTS: Final = "/v1/billing/meter_events"
METERS: Final = "/v1/billing/meters"
SUMMARIES: Final = "/v1/billing/meters/{meter}/event_summaries"
EVENTS: Final = "/v2/core/events"

ResultT = TypeVar("ResultT")


class StripeApi:
    """Makes one request for each call; when to call again is decided elsewhere."""

    def __init__(self, secret_key: str, base: str) -> None:
        """Prepare a client; ``base`` is empty for the real Stripe.

        Must be called with a running event loop.
        """
        self._base = base or stripe.DEFAULT_API_BASE
        self._http = StripeHttp()
        self._client = stripe_client(secret_key, base, self._http)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._http.close_async()

    async def send(self, report: Report, key_n: int) -> StripeAnswer:
        """Create the meter event of ``report`` and return what came back, never raising."""
        wanted = report.request()
        params: MeterEventCreateParams = {
            "event_name": wanted["event_name"],
            "identifier": wanted["identifier"],
            "timestamp": wanted["timestamp"],
            "payload": wanted["payload"],
        }
        key = idempotency_key(report.identifier, key_n)

        async def create() -> None:
            # Not meter_events.create_async: it makes objects of the answer, which `read` does not
            # need, at a quarter of the SDK's cost.
            response = await self._client.raw_request_async(
                "post", METER_EVENTS, **params, idempotency_key=key
            )
            if read(_MeterEvent, response).identifier != report.identifier:
                raise ValueError("the answer names another meter event")

        answer, _ = await self._call("POST", METER_EVENTS, create, {_IDENTIFIER: report.identifier})
        return answer

    async def active_meters(self) -> tuple[StripeAnswer, list[Meter]]:
        """Return what came back and all active meters of the account."""

        async def list_all() -> list[Meter]:
            return [each.meter() for each in await list_active_meters(self._client)]

        answer, found = await self._call("GET", METERS, list_all)
        return answer, found or []

    async def error_report(self, event_id: str) -> tuple[StripeAnswer, ErrorReport | None]:
        """Return what came back and what an event says of a meter's errors."""

        async def fetch() -> ErrorReport:
            path = f"{EVENTS}/{event_id}"
            response = await self._client.raw_request_async("get", path)
            report = read(ErrorReportBody, response).report()
            if report.event_id != event_id:
                raise ValueError("the answer is another event")
            return report

        return await self._call("GET", f"{EVENTS}/{{event}}", fetch)

    async def hourly_sums(
        self, meter_id: str, customer: str, start: datetime, end: datetime
    ) -> tuple[StripeAnswer, list[CountedHour] | None]:
        """Return what came back and the hours in which Stripe has counted anything."""

        async def list_all() -> list[CountedHour]:
            async def page(cursor: Any) -> stripe.StripeObject:
                params: Any = {
                    "customer": customer,
                    "start_time": int(start.timestamp()),
                    "end_time": int(end.timestamp()),
                    "value_grouping_window": "hour",
                    **cursor,
                }
                return await self._client.v1.billing.meters.event_summaries.list_async(
                    meter_id, params
                )

            return hours_of(await every_item(Page[SummaryBody], page), start, end)

        return await self._call("GET", SUMMARIES, list_all)

    async def meter_ids(self) -> tuple[StripeAnswer, dict[str, list[str]] | None]:
        """Return what came back and the ids of all meters, by event name.

        The name of an archived meter may be given to another one.
        """

        async def list_all() -> dict[str, list[str]]:
            found = await list_meters(self._client, "inactive")
            found += await list_meters(self._client, "active")
            ids: dict[str, list[str]] = {}
            for each in {each.id: each for each in found}.values():
                ids.setdefault(each.event_name, []).append(each.id)
            return ids

        return await self._call("GET", METERS, list_all)

    async def create_meter(self, meter: Meter, display_name: str) -> StripeAnswer:
        """Create a meter and return what came back."""
        params: Any = meter.creation(display_name)

        async def create() -> None:
            read(MeterBody, await self._client.v1.billing.meters.create_async(params))

        answer, _ = await self._call("POST", METERS, create)
        return answer

    async def _call(
        self,
        method: str,
        path: str,
        call: Callable[[], Awaitable[ResultT]],
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> tuple[StripeAnswer, ResultT | None]:
        with call_span(method, path, self._base, attributes) as span:
            answer, result = await ask(call)
            response = response_to(answer)
            well = response.effect is Effect.APPLIED
            span.record_answer(response.name, status=answer.status, ok=well)
            return answer, result


_IDENTIFIER: Final = "nexus.report.identifier"


class _MeterEvent(Body):
    object: Literal["billing.meter_event"]
    identifier: str


def stripe_api(settings: StripeSettings) -> StripeApi:
    """Return a client for the account of the settings' key; needs a running event loop."""
    return StripeApi(settings.stripe_secret_key.get_secret_value(), settings.stripe_api_base)
