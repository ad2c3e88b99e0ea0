"""The HTTP API for callers without a broker: create or link a user's customer, and show it."""

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from aiohttp import web

from customer_provisioner.http_requests import (
    Admission,
    customer_of,
    has_another,
    read_json,
    wait_until_provisioned,
    with_errors,
)
from customer_provisioner.profile import State
from customer_provisioner.storage.reader import ProfileReader
from nexus_contracts import Event, UserCreatedV2
from nexus_contracts.fields import trace_context
from nexus_contracts.user_created import oldest
from nexus_messaging.outgoing import send
from nexus_messaging.publisher import Publisher
from nexus_service.problems import Code, Problem, ProblemError
from nexus_service.request_bodies import read_body

_UNKNOWN_USER: Final = Problem(Code.NOT_FOUND, "no such user")

_OTHER_CUSTOMER: Final = Problem(
    Code.OTHER_CUSTOMER, "the user has another customer; only an operator replaces it"
)


class CustomerRoutes:
    """`POST /v1/customers` and `GET /v1/customers/{user_id}`, for holders of an API key.

    Answers never hold an address. The POST publishes ``user.created``, so that every customer is
    made in the same way, and an accepted user survives this process. ``publisher`` raises
    PublishError until the broker is connected.
    """

    def __init__(
        self,
        admission: Admission,
        profiles: ProfileReader,
        publisher: Callable[[], Publisher],
        now: Callable[[], datetime],
    ) -> None:
        self._admission = admission
        self._profiles = profiles
        self._publisher = publisher
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1/customers", with_errors(self._create)),
            web.get("/v1/customers/{user_id}", with_errors(self._show)),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        key = self._admission.admit(request)
        user = read_json(await read_body(request), UserCreatedV2)
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
            profile = await wait_until_provisioned(self._profiles, user.user_id)
        if has_another(profile, user.stripe_customer_id):
            raise ProblemError(_OTHER_CUSTOMER)
        return customer_of("user_id", user.user_id, profile)

    async def _show(self, request: web.Request) -> web.Response:
        self._admission.admit(request)
        try:
            user_id = UUID(request.match_info["user_id"])
        except ValueError:
            raise ProblemError(_UNKNOWN_USER) from None
        profile = await self._profiles.find(user_id)
        if profile is None:
            raise ProblemError(_UNKNOWN_USER)
        return customer_of("user_id", user_id, profile)
