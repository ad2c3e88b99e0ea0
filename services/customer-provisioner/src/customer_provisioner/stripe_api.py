"""The few calls to Stripe this service makes, and what each of Stripe's answers means for it."""

import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import stripe
import structlog
from pydantic import Field

from customer_provisioner.circuit import Cause, Circuit
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Create
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from nexus_messaging.topology import TIERS
from nexus_messaging.tracing import calling
from nexus_stripe.answers import Answer, Receipt
from nexus_stripe.bodies import Body, Id, Item, Page, every_item, read
from nexus_stripe.calls import StripeHttp, ask, stripe_client

T = TypeVar("T")

log = structlog.get_logger()


class StripePausedError(Exception):
    """No user can be served now, and none of them is to blame."""


class StripeKeyRefusedError(StripePausedError):
    """Stripe refuses the API key, so no user can be served until it is mended."""


class StripeUnavailableError(StripePausedError):
    """User after user gets no answer of Stripe's."""


class KeySpentError(TransientError):
    """Stripe keeps an answer under the idempotency key that is no customer, and may have one."""


class NotThereError(PermanentError):
    """Stripe has no such object."""


class Fate(Enum):
    """What Stripe says about a customer's id; deleted ones stay known to it."""

    LIVING = auto()
    DELETED = auto()
    MISSING = auto()


class Customer(Item):
    """A customer at Stripe; ``created`` in unix seconds."""

    object: Literal["customer"]
    created: int
    metadata: Annotated[dict[str, str] | None, Field(repr=False)] = None


class _State(Body):
    """What is left of a customer, deleted or not."""

    object: Literal["customer"]
    id: Id
    deleted: bool = False


class StripeApi:
    """Calls Stripe, one attempt each: trying again is for those who know what was tried.

    Every method raises:
        TransientError: no answer, or one that says to come again; the call may have had its effect.
        StripePausedError: the key is refused, or nobody gets an answer; no call may follow now.
        PermanentError: the request is refused for good. Its text has Stripe's code and parameter,
            never the message, which may quote the address.
    """

    def __init__(self, key: str, base: str, metrics: Metrics) -> None:
        self._http = StripeHttp()
        self._customers = stripe_client(key, base, self._http).v1.customers
        self._base = base or stripe.DEFAULT_API_BASE
        self._metrics = metrics
        self._circuit = Circuit()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    def require_closed(self) -> None:
        """Return if calls may be made.

        Raises:
            StripePausedError: not now.
        """
        if self._circuit.blocks(time.monotonic()):
            raise self._paused()

    async def remark(self) -> str | None:
        """Say why Stripe is not called, if it is not."""
        cause = self._circuit.cause
        return None if cause is None else f"the circuit is open for {cause.value}: users wait"

    async def create(self, step: Create) -> str:
        """Create the customer of ``step`` and return its id; repeated, it is the same customer.

        Raises:
            KeySpentError: a new key is needed, and a look whether the call had its effect.
        """
        params: Any = dict(step.body)

        async def create() -> str:
            made = await self._customers.create_async(params, {"idempotency_key": step.key})
            return read(Customer, made).id

        return await self._call("create", str(step.attempt.user_id), create)

    async def fate(self, customer_id: str) -> Fate:
        """Tell what has become of a customer."""

        async def retrieve() -> bool:
            state = read(_State, await self._customers.retrieve_async(customer_id))
            if state.id != customer_id:
                raise ValueError("another customer than the one that was asked for")
            return state.deleted

        try:
            deleted = await self._call("retrieve", customer_id, retrieve)
        except NotThereError:
            return Fate.MISSING
        return Fate.DELETED if deleted else Fate.LIVING

    async def find(self, user_id: str, email: str) -> list[Customer]:
        """Return the customers marked with ``user_id``, the oldest first.

        By search, which finds a customer whose address was changed and lags by a minute or so; then
        by exact address, which lags not at all.
        """
        try:
            searched = await self._call("search", user_id, lambda: self._search(user_id))
        except PermanentError:
            # Search is not offered to every account (https://docs.stripe.com/search); lists are.
            searched = []
        living = [each for each in searched if await self.fate(each.id) is Fate.LIVING]
        if living:
            return sorted(living, key=_age)
        listed = await self._call("list", user_id, lambda: self._list(email))
        return sorted((each for each in listed if _marks(each, user_id)), key=_age)

    async def _search(self, user_id: str) -> list[Customer]:
        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"query": f"metadata['user_id']:'{user_id}'", **cursor}
            return await self._customers.search_async(params)

        return await every_item(Page[Customer], page)

    async def _list(self, email: str) -> list[Customer]:
        async def page(cursor: Any) -> stripe.StripeObject:
            params: Any = {"email": email, **cursor}
            return await self._customers.list_async(params)

        return await every_item(Page[Customer], page)

    async def _call(self, call: str, user: str, work: Callable[[], Awaitable[T]]) -> T:
        self.require_closed()
        self._circuit = self._circuit.called(time.monotonic())
        began = time.monotonic()
        with calling(*_REQUESTS[call], self._base) as span:
            answer, result = await ask(work)
            name, error = meaning_of(answer)
            self._metrics.called(call, name, time.monotonic() - began)
            span.answered(name, status=answer.status, well=error is None)
        self._note(answer, user, error)
        if error is not None:
            self._raise(error)
        assert result is not None
        return result

    def _note(self, answer: Answer, user: str, error: Exception | None) -> None:
        before, now = self._circuit, time.monotonic()
        if isinstance(error, StripeKeyRefusedError):
            self._circuit = before.refused(now)
        elif _is_outage(answer):
            self._circuit = before.unanswered(user, now)
        else:
            self._circuit = before.answered()
        self._show(before.cause, self._circuit.cause)

    def _show(self, before: Cause | None, after: Cause | None) -> None:
        if before is after:
            return
        self._metrics.circuit(after)
        if after is not None:
            log.error("circuit_opened", cause=after.value)
        else:
            log.info("circuit_closed")

    def _raise(self, error: Exception) -> NoReturn:
        # A spent key has to be noted for the user, whatever else is known of Stripe.
        if type(error) is TransientError and self._circuit.cause is Cause.OUTAGE:
            raise StripeUnavailableError(str(error))
        raise error

    def _paused(self) -> StripePausedError:
        if self._circuit.cause is Cause.KEY:
            return StripeKeyRefusedError("Stripe refused the key a moment ago")
        return StripeUnavailableError("nobody got an answer of Stripe's a moment ago")


_REQUESTS: Final = MappingProxyType(
    {
        "create": ("POST", "/v1/customers"),
        "retrieve": ("GET", "/v1/customers/{customer}"),
        "search": ("GET", "/v1/customers/search"),
        "list": ("GET", "/v1/customers"),
    }
)
"""Method and path of each call, as spans name them."""

_KEY_SPENT: Final = "key_spent"
_REFUSED: Final = "refused"

_MEANINGS: Final[Mapping[int, tuple[str, Callable[[str], Exception]]]] = MappingProxyType(
    {
        401: ("key_refused", StripeKeyRefusedError),
        403: ("key_refused", StripeKeyRefusedError),
        404: (_REFUSED, partial(NotThereError, Reason.REFUSED_BY_STRIPE)),
        409: ("busy", partial(TransientError, tier=TIERS[0])),
        429: ("throttled", TransientError),
        500: (_KEY_SPENT, KeySpentError),
    }
)
"""What a status of Stripe's alone says: the metric's name, and the error made from its text."""

_REFUSALS: Final = range(400, 500)
_FAILURES: Final = range(500, 600)
_MISUSED: Final = (400, 404)


def meaning_of(answer: Answer) -> tuple[str, Exception | None]:
    """Return the metric's name of an answer, and what it means here: nothing if it is a success.

    What is not Stripe's own answer is never a refusal: it says nothing about the user.
    Sources: https://docs.stripe.com/error-low-level, https://docs.stripe.com/api/errors.
    """
    text = answer.describe()
    if answer.receipt is not Receipt.ANSWERED:
        return answer.receipt.value, TransientError(f"no answer of Stripe's: {text}")
    if answer.success:
        return "replayed" if answer.replayed else "ok", None
    status = answer.status or 0
    if answer.type == "idempotency_error" and status in _MISUSED:
        return _KEY_SPENT, KeySpentError(text)
    if status in _MEANINGS:
        name, error = _MEANINGS[status]
        return name, error(text)
    if status in _REFUSALS:
        return _REFUSED, PermanentError(Reason.REFUSED_BY_STRIPE, text)
    return "unknown", TransientError(text)


def _is_outage(answer: Answer) -> bool:
    return answer.receipt is not Receipt.ANSWERED or answer.status in _FAILURES


def _marks(customer: Customer, user_id: str) -> bool:
    return (customer.metadata or {}).get("user_id") == user_id


def _age(customer: Customer) -> tuple[int, str]:
    return customer.created, customer.id
