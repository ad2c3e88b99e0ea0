"""The edge to Stripe: the only room that knows its SDK. Its errors leave here as values."""

import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self

import aiohttp
import stripe
from stripe.params.billing import MeterCreateParams, MeterEventCreateParams

from nexus_messaging.tracing import Call, calling
from stripe_reporter.answers import Answer, Receipt, recognise
from stripe_reporter.meanings import Effect, meaning_of
from stripe_reporter.meters import Meter
from stripe_reporter.reports import Report, idempotency_key
from stripe_reporter.settings import StripeSettings

CALL_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 5.0

METER_EVENTS: Final = "/v1/billing/meter_events"
METERS: Final = "/v1/billing/meters"

_UNCONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_FAULTS: Final = (stripe.StripeError, aiohttp.ClientError, TimeoutError)
# The SDK lets aiohttp's own errors through where a body breaks off.


class StripeApi:
    """Calls Stripe, once for each call of ours: when to call again is not decided here."""

    def __init__(self, secret_key: str, base: str) -> None:
        """Prepare a client; ``base`` is empty for the real Stripe.

        Must be called with a running event loop.
        """
        connector = aiohttp.TCPConnector(
            limit=0,  # waiting for a connection would count against the call's own time
            ssl=ssl.create_default_context(cafile=stripe.ca_bundle_path),
        )
        self._base = base or stripe.DEFAULT_API_BASE
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT, connect=CONNECT_TIMEOUT)
        self._http = stripe.AIOHTTPClient(timeout=timeout, connector=connector)
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": base} if base else {},
            http_client=self._http,
            max_network_retries=0,
        )

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
        await self._http.close_async()  # type: ignore[no-untyped-call] # the SDK left it so

    async def send(self, report: Report, key_n: int) -> Answer:
        """Create the meter event of ``report`` and return what came back, never raising."""
        named = {"nexus.report.identifier": report.identifier}
        with calling("POST", METER_EVENTS, self._base, named) as call:
            return _told(call, await self._create_event(report, key_n))

    async def _create_event(self, report: Report, key_n: int) -> Answer:
        wanted = report.request()
        params: MeterEventCreateParams = {
            "event_name": wanted["event_name"],
            "identifier": wanted["identifier"],
            "timestamp": wanted["timestamp"],
            "payload": wanted["payload"],
        }
        key = idempotency_key(report.identifier, key_n)
        try:
            event = await self._client.v1.billing.meter_events.create_async(
                params, options={"idempotency_key": key}
            )
        except _FAULTS as error:
            return answer_of(error)
        if getattr(event, "identifier", None) != report.identifier:
            return Answer(Receipt.UNREADABLE, status=200)
        return Answer(Receipt.ANSWERED, status=200)

    async def active_meters(self) -> tuple[Answer, list[Meter]]:
        """Return what came back and the account's active meters (the newest 100)."""
        with calling("GET", METERS, self._base) as call:
            answer, found = await self._list_meters()
            return _told(call, answer), found

    async def _list_meters(self) -> tuple[Answer, list[Meter]]:
        try:
            found = await self._client.v1.billing.meters.list_async(
                {"status": "active", "limit": 100}
            )
        except _FAULTS as error:
            return answer_of(error), []
        headers = found.last_response.headers if found.last_response else {}
        answer = Answer(Receipt.ANSWERED, status=200, date=_date(headers))
        return answer, [_meter(each) for each in found.data]

    async def create_meter(self, meter: Meter, display_name: str) -> Answer:
        """Create a summing meter and return what came back."""
        with calling("POST", METERS, self._base) as call:
            return _told(call, await self._create_meter(meter, display_name))

    async def _create_meter(self, meter: Meter, display_name: str) -> Answer:
        params: MeterCreateParams = {
            "display_name": display_name,
            "event_name": meter.event_name,
            "default_aggregation": {"formula": "sum"},
            "customer_mapping": {"type": "by_id", "event_payload_key": meter.customer_key},
            "value_settings": {"event_payload_key": meter.value_key},
        }
        try:
            await self._client.v1.billing.meters.create_async(params)
        except _FAULTS as error:
            return answer_of(error)
        return Answer(Receipt.ANSWERED, status=200)


def stripe_api(settings: StripeSettings) -> StripeApi:
    """Return a client for the account of the settings' key; needs a running event loop."""
    return StripeApi(settings.stripe_secret_key.get_secret_value(), settings.stripe_api_base)


def answer_of(error: Exception) -> Answer:
    """Turn an error of the SDK or its HTTP library into an answer; its texts stay behind."""
    if isinstance(error, stripe.APIConnectionError):
        never_sent = isinstance(error.__cause__, _UNCONNECTED)
        return Answer(Receipt.NEVER_SENT if never_sent else Receipt.LOST)
    if not isinstance(error, stripe.StripeError):
        return Answer(Receipt.LOST)
    detail = error.error
    if detail is None:
        return Answer(Receipt.UNREADABLE, status=error.http_status)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return Answer(
        Receipt.ANSWERED,
        status=error.http_status,
        type=getattr(detail, "type", None),
        code=getattr(detail, "code", None),
        param=getattr(detail, "param", None),
        wording=recognise(getattr(detail, "message", None), getattr(detail, "code", None)),
        should_retry=_flag(headers.get("stripe-should-retry")),
        limited_by=headers.get("stripe-rate-limited-reason"),
        date=_date(headers),
    )


def _told(call: Call, answer: Answer) -> Answer:
    meaning = meaning_of(answer)
    well = meaning.effect is Effect.COUNTED
    call.answered(meaning.name, status=answer.status, well=well)
    return answer


def _flag(value: str | None) -> bool | None:
    return None if value is None else value.lower() == "true"


def _date(headers: Mapping[str, str]) -> float | None:
    named = {name.lower(): value for name, value in headers.items()}
    try:
        return parsedate_to_datetime(named["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _meter(found: stripe.billing.Meter) -> Meter:
    return Meter(
        event_name=found.event_name,
        formula=found.default_aggregation.formula,
        customer_key=found.customer_mapping.event_payload_key,
        value_key=found.value_settings.event_payload_key,
        time_window=found.event_time_window,
    )
