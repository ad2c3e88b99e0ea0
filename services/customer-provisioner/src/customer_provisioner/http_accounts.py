"""The HTTP API of organisations' accounts, and of who pays for whom."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from customer_provisioner.http_requests import (
    Admission,
    customer_of,
    has_another,
    read_json,
    wait_until_provisioned,
    with_errors,
)
from customer_provisioner.storage.assignments import AssignmentStore, NotAssignableError
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.statements import KeepResult
from customer_provisioner.storage.writer import ProfileWriter
from nexus_contracts import UserAssigned, UserCreatedV2
from nexus_contracts.fields import Moment, StripeCustomerId, Text
from nexus_contracts.user_created import OptionalEmail
from nexus_service.problems import Code, Problem, ProblemError
from nexus_service.request_bodies import read_body

_STRICT: Final = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)

_ID_TAKEN: Final = Problem(
    Code.ID_TAKEN, "a user has this id: an organisation needs one of its own"
)

_OTHER_CUSTOMER: Final = Problem(
    Code.OTHER_CUSTOMER, "the account has another customer; only an operator replaces it"
)


class NewAccount(BaseModel):
    """An organisation's account. Its address and name stay out of every repr."""

    model_config = _STRICT

    account_id: UUID
    name: Annotated[Text, Field(repr=False)]
    email: OptionalEmail = None
    stripe_customer_id: StripeCustomerId | None = None

    def as_user(self) -> UserCreatedV2:
        """Return the account as what is given a customer."""
        return UserCreatedV2(
            user_id=self.account_id,
            email=self.email,
            name=self.name,
            stripe_customer_id=self.stripe_customer_id,
        )


class NewAssignment(BaseModel):
    """Who pays for a user: from a time on, or from now on."""

    model_config = _STRICT

    user_id: UUID
    account_id: UUID
    since: Moment | None = None


class AccountRoutes:
    """`POST /v1/accounts` and `POST /v1/assignments`, for holders of an API key.

    An account is stored, and gets its customer as a user does: by the sweep, which ``wake_sweep``
    wakes. An assignment is stored, and the relay announces it, which ``wake_relay`` wakes.
    """

    def __init__(
        self,
        admission: Admission,
        reader: ProfileReader,
        profiles: ProfileWriter,
        assignments: AssignmentStore,
        *,
        wake_sweep: Callable[[], None],
        wake_relay: Callable[[], None],
        now: Callable[[], datetime],
    ) -> None:
        self._admission = admission
        self._reader = reader
        self._profiles = profiles
        self._assignments = assignments
        self._wake_sweep = wake_sweep
        self._wake_relay = wake_relay
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1/accounts", with_errors(self._create)),
            web.post("/v1/assignments", with_errors(self._assign)),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        key = self._admission.admit(request)
        if not key.may_publish(UserCreatedV2.TYPE):
            detail = f"this key may not publish {UserCreatedV2.TYPE}"
            raise ProblemError(Problem(Code.FORBIDDEN, detail))
        new = read_json(await read_body(request), NewAccount)
        kept = await self._profiles.keep(new.as_user(), self._now(), organisation=True)
        if kept is KeepResult.OTHER_KIND:
            raise ProblemError(_ID_TAKEN)
        self._wake_sweep()
        profile = await wait_until_provisioned(self._reader, new.account_id)
        if has_another(profile, new.stripe_customer_id):
            raise ProblemError(_OTHER_CUSTOMER)
        return customer_of("account_id", new.account_id, profile)

    async def _assign(self, request: web.Request) -> web.Response:
        key = self._admission.admit(request)
        if not key.may_assign:
            detail = f"this key may not publish {UserAssigned.TYPE}"
            raise ProblemError(Problem(Code.FORBIDDEN, detail))
        new = read_json(await read_body(request), NewAssignment)
        try:
            held, made = await self._assignments.assign(
                new.user_id, new.account_id, new.since, now=self._now(), made_by=key.source
            )
        except NotAssignableError as error:
            raise ProblemError(Problem(Code.NOT_ASSIGNABLE, str(error))) from None
        self._wake_relay()
        body = {
            "user_id": str(new.user_id),
            "account_id": str(new.account_id),
            "since": None if held is None else held.since.astimezone(UTC).isoformat(),
        }
        return web.json_response(body, status=201 if made else 200)
