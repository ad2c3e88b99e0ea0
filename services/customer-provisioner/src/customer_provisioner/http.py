"""The HTTP API for callers without a broker: create or link a user's customer, and show it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from aiohttp import web
from pydantic import ValidationError

from customer_provisioner.profile import Profile, State
from customer_provisioner.storage.reader import ProfileReader
from nexus_contracts import MAX_BODY_BYTES, Event, UserCreatedV2
from nexus_contracts.fields import trace_context
from nexus_contracts.user_created import oldest
from nexus_contracts.wording import broken_rules
from nexus_database import DatabaseUnavailableError
from nexus_messaging.errors import PublishError
from nexus_messaging.outgoing import send
from nexus_messaging.publisher import Publisher
from nexus_service.api_keys import ApiKey, key_of
from nexus_service.media_types import media_type_of
from nexus_service.problems import (
    CONTENT_TYPE,
    RETRY_AFTER,
    UNAUTHORIZED,
    Code,
    Fault,
    Problem,
    ProblemError,
)
from nexus_service.rate_limit import RateLimit

WAIT_SECONDS: Final = 5.0
"""How long a caller waits for its customer before the answer is 202."""

POLL_SECONDS: Final = 0.1

JSON: Final = "application/json"

BODY_SECONDS: Final = 10.0
"""For a request's body, so that a slow client holds a connection no longer."""

_UNKNOWN_USER: Final = Problem(Code.NOT_FOUND, "no such user")

_OTHER_CUSTOMER: Final = Problem(
    Code.OTHER_CUSTOMER, "the user has another customer; only an operator replaces it"
)

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class CustomerRoutes:
    """`POST /v1/customers` and `GET /v1/customers/{user_id}`, for holders of an API key.

    Answers never hold an address. The POST publishes ``user.created``, so that every customer is
    made in the same way, and an accepted user survives this process. ``publisher`` raises
    PublishError until the broker is connected.
    """

    def __init__(
        self,
        keys: tuple[ApiKey, ...],
        limit: RateLimit,
        profiles: ProfileReader,
        publisher: Callable[[], Publisher],
        now: Callable[[], datetime],
    ) -> None:
        self._keys = keys
        self._limit = limit
        self._profiles = profiles
        self._publisher = publisher
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1/customers", _with_errors(self._create)),
            web.get("/v1/customers/{user_id}", _with_errors(self._show)),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        key = self._admit(request)
        user = _read_user(await _read_body(request))
        event = Event.of(
            oldest(user),
            source=key.source,
            id=uuid4(),
            time=self._now(),
            traceparent=trace_context(request.headers.get("traceparent")),
        )
        if not key.may_publish(event.type):
            raise ProblemError(Problem(Code.FORBIDDEN, f"this key may not publish {event.type}"))
        profile = await self._profiles.find(user.user_id)
        if profile is None or profile.state is not State.PROVISIONED:
            await send(self._publisher(), event, parent=event.traceparent)
            profile = await self._wait_until_provisioned(user.user_id)
        if _has_another(profile, user.stripe_customer_id):
            raise ProblemError(_OTHER_CUSTOMER)
        return _customer(user.user_id, profile)

    async def _show(self, request: web.Request) -> web.Response:
        self._admit(request)
        try:
            user_id = UUID(request.match_info["user_id"])
        except ValueError:
            raise ProblemError(_UNKNOWN_USER) from None
        profile = await self._profiles.find(user_id)
        if profile is None:
            raise ProblemError(_UNKNOWN_USER)
        return _customer(user_id, profile)

    def _admit(self, request: web.Request) -> ApiKey:
        key = key_of(request.headers.get("Authorization"), self._keys)
        if key is None:
            raise ProblemError(UNAUTHORIZED)
        if wait := self._limit.take(key.name, 1):
            detail = "this key has sent too many requests to this process"
            raise ProblemError(Problem(Code.RATE_LIMITED, detail, retry_after=wait))
        return key

    async def _wait_until_provisioned(self, user_id: UUID) -> Profile | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        while True:
            profile = await self._profiles.find(user_id)
            ready = profile is not None and profile.state is State.PROVISIONED
            if ready or loop.time() > deadline:
                return profile
            await asyncio.sleep(POLL_SECONDS)


async def _read_body(request: web.Request) -> bytes:
    """Read the body of a request.

    Raises:
        ProblemError: another media type, too large, too slow, or not readable.
    """
    headers = request.headers
    if media_type_of(headers.get("Content-Type"), headers.get("Content-Encoding")) != JSON:
        detail = f"Content-Type is {JSON}, in UTF-8, without Content-Encoding"
        raise ProblemError(Problem(Code.UNSUPPORTED_MEDIA_TYPE, detail))
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    detail = f"a user has at most {MAX_BODY_BYTES} bytes"
                    raise ProblemError(Problem(Code.TOO_LARGE, detail))
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_SECONDS:.0f} s"
        raise ProblemError(Problem(Code.BODY_TIMEOUT, detail)) from None
    except web.RequestPayloadError:
        raise ProblemError(Problem(Code.INVALID, "the body can't be read")) from None
    return bytes(body)


def _read_user(body: bytes) -> UserCreatedV2:
    """Read a user.

    Raises:
        ProblemError: it names every field that breaks its rule.
    """
    try:
        return UserCreatedV2.model_validate_json(body)
    except ValidationError as error:
        faults = [Fault(broken) for broken in broken_rules(error)]
        raise ProblemError(Problem(Code.INVALID, "nothing was published", faults)) from None


def _with_errors(handler: _Handler) -> _Handler:
    """Return ``handler`` with an answer for each error that may pass through it."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except ProblemError as error:
            return _refusal(error.problem)
        except PublishError:
            return _refusal(_unavailable(Code.BROKER_UNAVAILABLE, "the broker can't be reached"))
        except DatabaseUnavailableError:
            return _refusal(_unavailable(Code.DATABASE_UNAVAILABLE, "no answer of the database"))

    return handle


def _unavailable(code: Code, detail: str) -> Problem:
    return Problem(code, f"{detail}; send the request again", retry_after=RETRY_AFTER)


def _refusal(problem: Problem) -> web.Response:
    return web.Response(
        body=problem.body(),
        status=problem.status,
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )


def _has_another(profile: Profile | None, wanted: str | None) -> bool:
    present = profile.stripe_customer_id if profile else None
    return present is not None and wanted not in (None, present)


def _customer(user_id: UUID, profile: Profile | None) -> web.Response:
    body: dict[str, Any] = {"user_id": str(user_id), "state": State.PROVISIONING}
    if profile is not None and profile.refused_as is not None:
        body["refused_as"] = profile.refused_as
    if profile is None or profile.state is State.PROVISIONING:
        return web.json_response(body, status=202)
    body |= {
        "state": profile.state,
        "stripe_customer_id": profile.stripe_customer_id,
        "generation": profile.generation,
    }
    return web.json_response(body)
