"""The few calls to Stripe that this service makes; each response becomes a result or an error."""

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Annotated, Any, Final, Literal, NoReturn, Self, TypeVar, cast

import stripe
import structlog
from pydantic import Field

from customer_provisioner.changes import Send
from customer_provisioner.circuit import (
    Cause,
    CircuitBreaker,
    CircuitOpenError,
    StripeKeyRefusedError,
    StripeUnavailableError,
)
from customer_provisioner.linking import (
    CustomerStatus,
    FoundCustomer,
    LinkRefusedError,
    link_fault,
)
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Create, Link, LookUp, mark
from customer_provisioner.settings import StripeSettings
from customer_provisioner.stripe.responses import (
    CustomerInOtherModeError,
    CustomerNotFoundError,
    KeySpentError,
    response_of,
)
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from nexus_messaging.tracing import call_span
from nexus_stripe.answer_classes import AnswerClass
from nexus_stripe.bodies import Body, Id, Item, Page, every_item, read
from nexus_stripe.calls import StripeHttp, ask, stripe_client

T = TypeVar("T")

log = structlog.get_logger()


LOOK_UP_PAGES: Final = 1000
"""Pages of a list that a look-up reads: 100,000 customers, created within 22 hours.

If there are more, the look-up fails and is repeated: search finds the customer after its lag.
"""


class StripeApi:
    """Calls Stripe once for each method call: the caller decides whether to repeat.

    Every method that calls raises:
        TransientError: there was no response, or one that allows a repetition; the call may have
            had its effect.
        CircuitOpenError: the key is refused, or Stripe does not respond; no call may follow now.
        PermanentError: Stripe refuses the request for good. The text has Stripe's code and
            parameter, never the message, which may quote the address.
    """

    def __init__(self, key: str, base: str, metrics: Metrics) -> None:
        self._http = StripeHttp()
        self._customers = stripe_client(key, base, self._http).v1.customers
        self._base = base or stripe.DEFAULT_API_BASE
        self._live = _mode_of(key)
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

    async def create(self, step: Create) -> str:
        """Create the customer of ``step`` and return its id; repeated, it is the same customer.

        Raises:
            KeySpentError: look for the customer, then use a new key.
        """
        params: Any = dict(step.body)

        async def create() -> str:
            customer = await self._customers.create_async(params, {"idempotency_key": step.key})
            return read(_Customer, customer).id

        return await self._call("create", str(step.attempt.user_id), create)

    async def link(self, step: Link) -> str:
        """Mark the customer of ``step`` as the user's; return its id. A repetition is harmless.

        Raises:
            LinkRefusedError: it can't be this user's.
            KeySpentError: look for the customer of a creation under this key, then use a new key.
        """
        user_id, customer_id = step.attempt.user_id, step.customer_id
        fault = link_fault(await self.retrieve(customer_id), user_id)
        if fault is not None:
            raise LinkRefusedError(fault)
        params: Any = mark(user_id)

        async def link() -> str:
            answer = await self._customers.update_async(
                customer_id, params, {"idempotency_key": step.key}
            )
            return read(_Customer, answer).id

        return await self._call("link", str(user_id), link)

    async def update(self, step: Send) -> None:
        """Give the customer of ``step`` what has changed; a repetition is harmless.

        Raises:
            PermanentError: also, as ``no_such_customer``, if the customer was deleted.
        """
        params: Any = dict(step.body)

        async def update() -> None:
            read(_Customer, await self._customers.update_async(step.customer_id, params))

        try:
            await self._call("update", str(step.user_id), update)
        except CustomerNotFoundError as error:
            raise PermanentError(Reason.NO_SUCH_CUSTOMER, str(error)) from None

    async def retrieve(self, customer_id: str) -> FoundCustomer:
        """Return what Stripe says about a customer's id."""

        async def retrieve() -> _RetrievedCustomer:
            customer = read(_RetrievedCustomer, await self._customers.retrieve_async(customer_id))
            if customer.id != customer_id:
                raise ValueError("another customer than the one requested")
            return customer

        try:
            customer = await self._call("retrieve", customer_id, retrieve)
        except CustomerInOtherModeError:
            return FoundCustomer(CustomerStatus.OTHER_MODE)
        except CustomerNotFoundError:
            return FoundCustomer(CustomerStatus.UNKNOWN)
        if customer.deleted:
            return FoundCustomer(CustomerStatus.DELETED)
        if self._live not in (None, customer.livemode):
            return FoundCustomer(CustomerStatus.OTHER_MODE)
        return FoundCustomer(CustomerStatus.EXISTS, (customer.metadata or {}).get("user_id"))

    async def find(self, step: LookUp) -> list[str]:
        """Return the ids of the customers marked with the user, the oldest first.

        Search finds each, but lags by about a minute. If it finds none, the list of all customers
        that were created when this one can have been follows, which does not lag.
        """
        user_id = str(step.attempt.user_id)
        present = FoundCustomer(CustomerStatus.EXISTS, user_id)  # search may have a former mark
        try:
            searched = await self._call("search", user_id, lambda: self._search(user_id))
        except PermanentError:
            # Some accounts have no search (https://docs.stripe.com/search); all have lists.
            searched = []
        found = [
            each
            for each in searched
            if each.id not in step.former and await self.retrieve(each.id) == present
        ]
        if not found:
            within = (step.created_from, step.created_to)
            listed = await self._call("list", user_id, lambda: self._list(*within))
            marked = [each for each in listed if (each.metadata or {}).get("user_id") == user_id]
            found = [each for each in marked if each.id not in step.former]
        return [each.id for each in sorted(found, key=lambda each: (each.created, each.id))]

    async def _search(self, user_id: str) -> "list[_Customer]":
        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"query": f"metadata['user_id']:'{user_id}'", **cursor}
            return await self._customers.search_async(params)

        return await every_item(Page[_Customer], page)

    async def _list(self, start: datetime, end: datetime) -> "list[_Customer]":
        created = {"gte": int(start.timestamp()), "lte": int(end.timestamp())}

        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"created": created, **cursor}
            return await self._customers.list_async(params)

        return await every_item(Page[_Customer], page, most_pages=LOOK_UP_PAGES)

    async def _call(self, call: str, user: str, work: Callable[[], Awaitable[T]]) -> T:
        self.require_closed()
        started = time.monotonic()
        self._breaker = self._breaker.called(started)
        with call_span(*_REQUESTS[call], self._base) as span:
            answer, result = await ask(work)
            kind, error = response_of(answer)
            self._metrics.called(call, kind.name, time.monotonic() - started)
            span.record_answer(kind.name, status=answer.status, ok=error is None)
        self._update_breaker(kind, user, error)
        if isinstance(error, KeySpentError) and _REQUESTS[call][0] == "GET":
            error = TransientError(str(error))  # it was sent without a key
        if error is not None:
            self._raise(error)
        return cast("T", result)  # None is a result, too

    def _update_breaker(self, kind: AnswerClass, user: str, error: Exception | None) -> None:
        before, now = self._breaker.cause, time.monotonic()
        if isinstance(error, StripeKeyRefusedError):
            self._breaker = self._breaker.key_refused(now)
        elif kind.outage:
            self._breaker = self._breaker.unanswered(user, now)
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


class _Customer(Item):
    """A customer in a response; ``created`` in Unix seconds."""

    object: Literal["customer"]
    created: int
    metadata: Annotated[dict[str, str] | None, Field(repr=False)] = None


class _RetrievedCustomer(Body):
    """What Stripe shows of a customer by its id, deleted or not."""

    object: Literal["customer"]
    id: Id
    deleted: bool = False
    livemode: bool = False
    metadata: Annotated[dict[str, str] | None, Field(repr=False)] = None


_REQUESTS: Final = MappingProxyType(
    {
        "create": ("POST", "/v1/customers"),
        "link": ("POST", "/v1/customers/{customer}"),
        "update": ("POST", "/v1/customers/{customer}"),
        "retrieve": ("GET", "/v1/customers/{customer}"),
        "search": ("GET", "/v1/customers/search"),
        "list": ("GET", "/v1/customers"),
    }
)
"""Method and path of each call, as spans name them."""


def _mode_of(key: str) -> bool | None:
    """Return whether a key is of the live mode; None if its form is unknown."""
    return next((live for part, live in _MODES.items() if part in key), None)


_MODES: Final = MappingProxyType({"_live_": True, "_test_": False})
"""What the keys of each mode have (https://docs.stripe.com/keys)."""


def stripe_api(settings: StripeSettings, metrics: Metrics) -> StripeApi:
    """Return a client for the account of the settings' key; needs a running event loop."""
    key = settings.stripe_secret_key.get_secret_value()
    return StripeApi(key, settings.stripe_api_base, metrics)
