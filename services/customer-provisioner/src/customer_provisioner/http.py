"""The HTTP API for callers without a broker: create a user's customer, and show it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from aiohttp import web
from pydantic import ValidationError

from customer_provisioner.api_keys import ApiKey, key_of
from customer_provisioner.profile import Profile, State
from customer_provisioner.storage.reader import ProfileReader
from nexus_contracts import Event, UserCreated
from nexus_contracts.fields import trace_context
from nexus_contracts.wording import describe
from nexus_database import DatabaseUnavailableError
from nexus_messaging.errors import PublishError
from nexus_messaging.outgoing import send
from nexus_messaging.publisher import Publisher

WAIT_SECONDS: Final = 5.0
"""How long a caller waits for its customer before the answer is 202."""

POLL_SECONDS: Final = 0.1

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
        profiles: ProfileReader,
        publisher: Callable[[], Publisher],
        now: Callable[[], datetime],
    ) -> None:
        self._keys = keys
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
        key = self._authorized(request)
        if not key.may_publish(UserCreated.TYPE):
            return _refusal(403, "forbidden", detail=f"this key may not publish {UserCreated.TYPE}")
        try:
            user = UserCreated.model_validate_json(await request.read())
        except ValidationError as error:
            return _refusal(422, "invalid", detail=describe(error))
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413, "too_large")
        except web.RequestPayloadError:
            return _refusal(400, "unreadable_body")
        profile = await self._profiles.find(user.user_id)
        if profile is None or profile.state is not State.PROVISIONED:
            await self._publish(user, key, trace_context(request.headers.get("traceparent")))
            profile = await self._wait_until_provisioned(user.user_id)
        return _customer(user.user_id, profile)

    async def _show(self, request: web.Request) -> web.Response:
        self._authorized(request)
        try:
            user_id = UUID(request.match_info["user_id"])
        except ValueError:
            return _refusal(404, "unknown_user")
        profile = await self._profiles.find(user_id)
        return _refusal(404, "unknown_user") if profile is None else _customer(user_id, profile)

    def _authorized(self, request: web.Request) -> ApiKey:
        key = key_of(request.headers.get("Authorization"), self._keys)
        if key is None:
            raise _UnauthorizedError
        return key

    async def _publish(self, user: UserCreated, key: ApiKey, parent: str | None) -> None:
        event = Event.of(user, source=key.source, id=uuid4(), time=self._now())
        await send(self._publisher(), event, parent=parent)

    async def _wait_until_provisioned(self, user_id: UUID) -> Profile | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        while True:
            profile = await self._profiles.find(user_id)
            ready = profile is not None and profile.state is State.PROVISIONED
            if ready or loop.time() > deadline:
                return profile
            await asyncio.sleep(POLL_SECONDS)


class _UnauthorizedError(Exception):
    """The request has none of the configured keys."""


def _with_errors(handler: _Handler) -> _Handler:
    """Return ``handler`` with an answer for each error that may pass through it."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except _UnauthorizedError:
            return _refusal(401, "unauthorized", headers={"WWW-Authenticate": "Bearer"})
        except PublishError:
            return _refusal(503, "broker_unavailable", headers={"Retry-After": "5"})
        except DatabaseUnavailableError:
            return _refusal(503, "database_unavailable", headers={"Retry-After": "5"})

    return handle


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


def _refusal(
    status: int, error: str, *, detail: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"error": error} if detail is None else {"error": error, "detail": detail}
    return web.json_response(body, status=status, headers=headers)
