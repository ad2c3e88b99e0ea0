"""How a request to the HTTP API is admitted, answered and refused."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ValidationError

from customer_provisioner.profile import Profile, State
from customer_provisioner.storage.reader import ProfileReader
from nexus_contracts.wording import broken_rules
from nexus_database import DatabaseUnavailableError
from nexus_messaging.errors import PublishError
from nexus_service.api_keys import ApiKey, key_of
from nexus_service.http import problem_response
from nexus_service.problems import (
    RETRY_AFTER,
    UNAUTHORIZED,
    Code,
    Fault,
    Problem,
    ProblemError,
)
from nexus_service.rate_limit import RateLimiter

WAIT_SECONDS: Final = 5.0
"""How long a caller waits for its customer before the answer is 202."""

POLL_SECONDS: Final = 0.1

ModelT = TypeVar("ModelT", bound=BaseModel)

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Admission:
    """Admits the holders of API keys, each at its rate."""

    def __init__(self, keys: tuple[ApiKey, ...], limit: RateLimiter) -> None:
        self._keys = keys
        self._limit = limit

    def admit(self, request: web.Request) -> ApiKey:
        """Return the key of a request.

        Raises:
            ProblemError: it has none of the configured keys, or too many requests had this one.
        """
        key = key_of(request.headers.get("Authorization"), self._keys)
        if key is None:
            raise ProblemError(UNAUTHORIZED)
        if wait := self._limit.take(key.name, 1):
            detail = "this key has sent too many requests to this process"
            raise ProblemError(Problem(Code.RATE_LIMITED, detail, retry_after=wait))
        return key


def read_json(body: bytes, kind: type[ModelT]) -> ModelT:
    """Read a body as ``kind``.

    Raises:
        ProblemError: it names every field that breaks its rule.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        faults = [Fault(broken) for broken in broken_rules(error)]
        raise ProblemError(Problem(Code.INVALID, "nothing was accepted", faults)) from None


async def wait_until_provisioned(profiles: ProfileReader, account_id: UUID) -> Profile | None:
    """Return the profile of a user or an organisation once it has a customer, or after a while."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_SECONDS
    while True:
        profile = await profiles.find(account_id)
        ready = profile is not None and profile.state is State.PROVISIONED
        if ready or loop.time() > deadline:
            return profile
        await asyncio.sleep(POLL_SECONDS)


def has_another(profile: Profile | None, wanted: str | None) -> bool:
    """Return whether there is a customer, and another than the one to be linked."""
    present = profile.stripe_customer_id if profile else None
    return present is not None and wanted not in (None, present)


def customer_of(name: str, account_id: UUID, profile: Profile | None) -> web.Response:
    """Return the answer about the customer of the user or account ``account_id``."""
    body: dict[str, Any] = {name: str(account_id), "state": State.PROVISIONING}
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


def with_errors(handler: Handler) -> Handler:
    """Return ``handler`` with an answer for each error that may pass through it."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except ProblemError as error:
            return problem_response(error.problem)
        except PublishError:
            return _unavailable(Code.BROKER_UNAVAILABLE, "the broker can't be reached")
        except DatabaseUnavailableError:
            return _unavailable(Code.DATABASE_UNAVAILABLE, "no answer of the database")

    return handle


def _unavailable(code: Code, detail: str) -> web.Response:
    detail = f"{detail}; send the request again"
    return problem_response(Problem(code, detail, retry_after=RETRY_AFTER))
