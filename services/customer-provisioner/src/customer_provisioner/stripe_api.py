"""The few calls to Stripe this service makes, and what each of Stripe's answers means for it."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, TypeVar

import aiohttp
import stripe

from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Create
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.reasons import Reason
from nexus_messaging.topology import TIERS
from nexus_messaging.tracing import Call, calling

CALL_TIMEOUT: Final = 10.0
KEY_PAUSE: Final = 5.0
"""Seconds without calls after Stripe refused the key: asking on would only cost calls."""

T = TypeVar("T")


class StripeKeyRefusedError(Exception):
    """Stripe refuses the API key, so no user can be served until it is mended."""


class KeySpentError(TransientError):
    """Stripe keeps an answer under the idempotency key that is no customer, and may have one."""


class NotThereError(PermanentError):
    """Stripe has no such object."""


class Fate(Enum):
    """What Stripe says about a customer's id; deleted ones stay known to it."""

    LIVING = auto()
    DELETED = auto()
    MISSING = auto()


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer at Stripe; ``created`` in unix seconds."""

    id: str
    created: int


class StripeApi:
    """Calls Stripe, one attempt each: trying again is for those who know what was tried.

    Every method raises:
        TransientError: no answer, or one that says to come again; the call may have had its effect.
        StripeKeyRefusedError: the key is refused.
        PermanentError: the request is refused for good. Its text has Stripe's code and parameter,
            never the message, which may quote the address.
    """

    def __init__(self, key: str, base: str, metrics: Metrics) -> None:
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT))
        self._customers = stripe.StripeClient(
            key,
            base_addresses={"api": base} if base else {},
            http_client=self._http,
            max_network_retries=0,
        ).v1.customers
        self._base = base or stripe.DEFAULT_API_BASE
        self._metrics = metrics
        self._silent_until = 0.0

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it bare

    async def create(self, step: Create) -> str:
        """Create the customer of ``step`` and return its id; repeated, it is the same customer.

        Raises:
            KeySpentError: a new key is needed, and a look whether the call had its effect.
        """
        params: Any = dict(step.body)
        customer = await self._call(
            "create",
            lambda: self._customers.create_async(params, {"idempotency_key": step.key}),
        )
        return customer.id

    async def fate(self, customer_id: str) -> Fate:
        """Tell what has become of a customer."""
        try:
            customer = await self._call(
                "retrieve", lambda: self._customers.retrieve_async(customer_id)
            )
        except NotThereError:
            return Fate.MISSING
        return Fate.DELETED if getattr(customer, "deleted", False) else Fate.LIVING

    async def find(self, user_id: str, email: str) -> list[Customer]:
        """Return the customers marked with ``user_id``, the oldest first.

        By search, which finds a customer whose address was changed and lags by a minute or so; then
        by exact address, which lags not at all.
        """
        try:
            searched = await self._call("search", lambda: self._search(user_id))
        except PermanentError:
            # Search is not offered to every account (https://docs.stripe.com/search); lists are.
            searched = []
        living = [each for each in searched if await self.fate(each.id) is Fate.LIVING]
        if living:
            return sorted(living, key=_age)
        return sorted(await self._call("list", lambda: self._list(user_id, email)), key=_age)

    async def _search(self, user_id: str) -> list[Customer]:
        page = await self._customers.search_async(
            {"query": f"metadata['user_id']:'{user_id}'", "limit": 100}
        )
        return [Customer(each.id, each.created) for each in page.data]

    async def _list(self, user_id: str, email: str) -> list[Customer]:
        page = await self._customers.list_async({"email": email, "limit": 100})
        return [
            Customer(each.id, each.created)
            async for each in page.auto_paging_iter()
            if getattr(each.metadata, "user_id", None) == user_id
        ]

    async def _call(self, call: str, ask: Callable[[], Awaitable[T]]) -> T:
        if time.monotonic() < self._silent_until:
            raise StripeKeyRefusedError("Stripe refused the key a moment ago")
        with calling(*_REQUESTS[call], self._base) as span:
            return await self._answered(call, ask, span)

    async def _answered(self, call: str, ask: Callable[[], Awaitable[T]], span: Call) -> T:
        began = time.monotonic()
        answer, status = "unknown", None
        try:
            result = await ask()
            answer, status = "replayed" if _replayed(result) else "ok", HTTPStatus.OK.value
        except stripe.StripeError as error:
            (answer, meaning), status = _meaning(error), error.http_status
            if isinstance(meaning, StripeKeyRefusedError):
                self._silent_until = time.monotonic() + KEY_PAUSE
            raise meaning from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransientError(f"no answer from Stripe: {type(error).__name__}") from None
        finally:
            self._metrics.called(call, answer, time.monotonic() - began)
            span.answered(answer, status=status, well=status == HTTPStatus.OK)
        return result


_REQUESTS: Final = MappingProxyType(
    {
        "create": ("POST", "/v1/customers"),
        "retrieve": ("GET", "/v1/customers/{customer}"),
        "search": ("GET", "/v1/customers/search"),
        "list": ("GET", "/v1/customers"),
    }
)
"""Method and path of each call, as spans name them."""

_MEANINGS: Final[Mapping[int, tuple[str, Callable[[str], Exception]]]] = MappingProxyType(
    {
        401: ("key_refused", StripeKeyRefusedError),
        403: ("key_refused", StripeKeyRefusedError),
        404: ("refused", partial(NotThereError, Reason.REFUSED_BY_STRIPE)),
        409: ("busy", partial(TransientError, tier=TIERS[0])),
        429: ("throttled", TransientError),
    }
)
"""What a status alone tells: the metric's name of the answer, and the error made from its text."""

_REFUSALS: Final = range(400, 500)


def _meaning(error: stripe.StripeError) -> tuple[str, Exception]:
    """Return the metric's name of an error of Stripe's, and what it means here.

    Sources: https://docs.stripe.com/error-low-level, https://docs.stripe.com/api/errors.
    """
    status, told = error.http_status or 0, _told(error)
    kept_failure = status == HTTPStatus.INTERNAL_SERVER_ERROR and error.error is not None
    if kept_failure or isinstance(error, stripe.IdempotencyError):
        return "key_spent", KeySpentError(told)
    if status in _MEANINGS:
        answer, meaning = _MEANINGS[status]
        return answer, meaning(told)
    if status in _REFUSALS:
        return "refused", PermanentError(Reason.REFUSED_BY_STRIPE, told)
    return "unknown", TransientError(told)


def _told(error: stripe.StripeError) -> str:
    """Name an error by status, code and parameter; its message may quote what was sent."""
    body = error.error
    parts = (
        type(error).__name__,
        error.http_status and f"status {error.http_status}",
        body and body.code,
        body and getattr(body, "param", None) and f"param {body.param}",
        error.request_id,
    )
    return ", ".join(str(part) for part in parts if part)


def _replayed(result: object) -> bool:
    response = getattr(result, "last_response", None)
    return getattr(response, "headers", {}).get("Idempotent-Replayed") == "true"


def _age(customer: Customer) -> tuple[int, str]:
    return customer.created, customer.id
