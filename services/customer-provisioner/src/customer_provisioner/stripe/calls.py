"""One call to Stripe: the circuit breaker before it, and what follows from its answer."""

import time
from collections.abc import Awaitable, Callable
from types import MappingProxyType, TracebackType
from typing import Final, NoReturn, Self, TypeVar, cast

import stripe
import structlog

from customer_provisioner.circuit import (
    Cause,
    CircuitBreaker,
    CircuitOpenError,
    StripeKeyRefusedError,
    StripeUnavailableError,
)
from customer_provisioner.metrics import Metrics
from customer_provisioner.settings import StripeSettings
from customer_provisioner.stripe.responses import KeySpentError, RightMissingError, response_of
from nexus_messaging.errors import TransientError
from nexus_messaging.tracing import call_span
from nexus_stripe.answer_classes import FORBIDDEN, AnswerClass
from nexus_stripe.calls import StripeHttp, ask, stripe_client

T = TypeVar("T")

log = structlog.get_logger()

REQUESTS: Final = MappingProxyType(
    {
        "create": ("POST", "/v1/customers"),
        "link": ("POST", "/v1/customers/{customer}"),
        "update": ("POST", "/v1/customers/{customer}"),
        "retrieve": ("GET", "/v1/customers/{customer}"),
        "search": ("GET", "/v1/customers/search"),
        "list": ("GET", "/v1/customers"),
        "subscription": ("GET", "/v1/subscriptions/{subscription}"),
        "subscriptions": ("GET", "/v1/subscriptions"),
        "items": ("GET", "/v1/subscription_items"),
        "product": ("GET", "/v1/products/{product}"),
        "meter": ("GET", "/v1/billing/meters/{meter}"),
        "meters": ("GET", "/v1/billing/meters"),
        "features": ("GET", "/v1/entitlements/features"),
        "products": ("GET", "/v1/products"),
        "product_features": ("GET", "/v1/products/{product}/features"),
        "prices": ("GET", "/v1/prices"),
        "price": ("GET", "/v1/prices/{price}"),
        "price_subscriptions": ("GET", "/v1/subscriptions"),
        "ensure": ("POST", "/v1/{catalogue}"),
    }
)
"""Method and path of each call, as spans name them."""

RIGHTS: Final = MappingProxyType(
    {
        "subscription": "Subscriptions: read",
        "subscriptions": "Subscriptions: read",
        "items": "Subscriptions: read",
        "product": "Products: read",
        "meter": "Billing meters: read",
        "meters": "Billing meters: write",
        "features": "Entitlements: write",
        "products": "Products: write",
        "product_features": "Products: write",
        "prices": "Prices: write",
        "price": "Prices: write",
        "price_subscriptions": "Subscriptions: read",
        "ensure": "Billing meters, Entitlements, Products and Prices: write",
    }
)
"""The right that a restricted key needs for each call beyond customers.

Without it these calls are refused and no others, so the circuit breaker stays closed.
"""


class StripeCalls:
    """Makes calls to Stripe. Several adapters share one, with its circuit breaker.

    ``call`` raises:
        TransientError: there was no response, or one that allows a repetition; the call may have
            had its effect.
        CircuitOpenError: the key is refused, or Stripe does not respond; no call may follow now.
        PermanentError: Stripe refuses the request for good. The text has Stripe's code and
            parameter, never the message, which may quote the address.
    """

    def __init__(self, key: str, base: str, metrics: Metrics) -> None:
        self._http = StripeHttp()
        self.client = stripe_client(key, base, self._http)
        self.v1 = self.client.v1
        self.live = _mode_of(key)
        self._base = base or stripe.DEFAULT_API_BASE
        self._metrics = metrics
        self._breaker = CircuitBreaker()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    def require_closed(self) -> None:
        """Return if the circuit breaker lets a call through.

        Raises:
            CircuitOpenError: it does not.
        """
        if self._breaker.rejects(time.monotonic()):
            raise self._open_error()

    async def remark(self) -> str | None:
        """Return why Stripe is not called, or None if it is."""
        cause = self._breaker.cause
        return None if cause is None else f"circuit breaker open ({cause.value}): users wait"

    async def call(self, call: str, subject: str, work: Callable[[], Awaitable[T]]) -> T:
        """Make one of ``REQUESTS`` and return the result of ``work``, which makes it.

        Failures for several different ``subject``s in a row, such as users, open the breaker.
        """
        self.require_closed()
        started = time.monotonic()
        self._breaker = self._breaker.called(started)
        with call_span(*REQUESTS[call], self._base) as span:
            answer, result = await ask(work)
            kind, error = response_of(answer)
            self._metrics.called(call, kind.name, time.monotonic() - started)
            span.record_answer(kind.name, status=answer.status, ok=error is None)
        if kind is FORBIDDEN and call in RIGHTS:
            error = RightMissingError(f"the key lacks the right {RIGHTS[call]} ({error})")
        self._update_breaker(kind, subject, error)
        if isinstance(error, KeySpentError) and REQUESTS[call][0] == "GET":
            error = TransientError(str(error))  # it was sent without a key
        if error is not None:
            self._raise(error)
        return cast("T", result)  # None is a result, too

    def _update_breaker(self, kind: AnswerClass, subject: str, error: Exception | None) -> None:
        before, now = self._breaker.cause, time.monotonic()
        if isinstance(error, StripeKeyRefusedError):
            self._breaker = self._breaker.key_refused(now)
        elif kind.outage:
            self._breaker = self._breaker.unanswered(subject, now)
        else:
            self._breaker = self._breaker.answered()

        after = self._breaker.cause
        if after is before:
            return
        self._metrics.circuit(after)
        if after is not None:
            log.error("circuit_opened", cause=after.value)
        else:
            log.info("circuit_closed")

    def _raise(self, error: Exception) -> NoReturn:
        # A spent key must be stored for the user, whatever state the breaker is in.
        if type(error) is TransientError and self._breaker.cause is Cause.OUTAGE:
            raise StripeUnavailableError(str(error))
        raise error

    def _open_error(self) -> CircuitOpenError:
        if self._breaker.cause is Cause.KEY:
            return StripeKeyRefusedError("circuit breaker open: Stripe refused the key")
        return StripeUnavailableError("circuit breaker open: Stripe did not respond")


def _mode_of(key: str) -> bool | None:
    """Return whether a key is of the live mode; None if its form is unknown."""
    return next((live for part, live in _MODES.items() if part in key), None)


_MODES: Final = MappingProxyType({"_live_": True, "_test_": False})
"""What the keys of each mode have (https://docs.stripe.com/keys)."""


def stripe_calls(settings: StripeSettings, metrics: Metrics) -> StripeCalls:
    """Return what calls the account of the settings' key; needs a running event loop."""
    key = settings.stripe_secret_key.get_secret_value()
    return StripeCalls(key, settings.stripe_api_base, metrics)
