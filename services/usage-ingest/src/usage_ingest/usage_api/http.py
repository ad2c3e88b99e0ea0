"""`GET /v1/entitlements/{user_id}` and `GET /v1/usage`, for services and for users' pages."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, Self

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from nexus_database import DatabaseUnavailableError, RowsBusyError
from nexus_plans import Plans
from nexus_service.api_keys import ApiKey, key_of
from nexus_service.asgi import problem_response
from nexus_service.problems import RETRY_AFTER, UNAUTHORIZED, Code, Problem, ProblemError
from nexus_service.rate_limit import RateLimiter
from usage_ingest.usage_api.encoding import as_json
from usage_ingest.usage_api.headers import WithHeaders
from usage_ingest.usage_api.metrics import ENTITLEMENTS, NOT_MODIFIED, OK, USAGE, Metrics
from usage_ingest.usage_api.reading import entitlements_scope, usage_query
from usage_ingest.usage_api.storage import MAX_ROWS, ApiAnswer, TooManyRowsError, UsageReader
from usage_ingest.usage_api.tokens import TokenKeys, TokenUser, verify
from usage_ingest.usage_api.turns import NoTurnError, Turns

REQUEST_SECONDS: Final = 8.0
"""For a whole request whose turn it is, of which one statement has 5."""

ENTITLEMENTS_AT_ONCE: Final = 3
USAGE_AT_ONCE: Final = 2
"""Requests that use the database at the same time. Each kind has its own: pages, which take long,
hold up no question whether a run is allowed."""

BUSY_RETRY_AFTER: Final = 1
"""Seconds after which a request that found no turn may find one."""

MAX_AGE: Final = 30
"""Seconds for which an answer may be used again without asking."""

CORS_MAX_AGE: Final = 600
"""Seconds for which a browser need not ask whether it may ask."""

NO_PLANS: Final = Problem(Code.NOT_FOUND, "there are no plans: PLANS_FILE is not set")
TOO_MANY_ROWS: Final = Problem(
    Code.TOO_LARGE, f"more than {MAX_ROWS:,} rows: ask for a shorter span, or by day"
)
OVERLOADED: Final = Problem(Code.OVERLOADED, "the answer took too long", retry_after=RETRY_AFTER)
BUSY: Final = Problem(
    Code.OVERLOADED, "too many requests at once to this process", retry_after=BUSY_RETRY_AFTER
)

Caller = ApiKey | TokenUser


@dataclass(frozen=True, slots=True)
class Callers:
    """Who may ask: services by their keys, users by their tokens, each within a rate."""

    keys: tuple[ApiKey, ...]
    key_limit: RateLimiter
    token_keys: TokenKeys | None
    user_limit: RateLimiter
    now: Callable[[], datetime]

    def of(self, authorization: str | None) -> Caller:
        """Return who sends a request with this ``Authorization``.

        Raises:
            ProblemError: nobody who may, or they have sent too much.
        """
        key = key_of(authorization, self.keys)
        if key is not None:
            _require(self.key_limit.take(key.name, 1))
            return key
        scheme, _, token = (authorization or "").partition(" ")
        if self.token_keys is None or scheme.lower() != "bearer" or token.count(".") != 2:  # noqa: PLR2004
            raise ProblemError(UNAUTHORIZED)
        user = verify(token.strip(), self.token_keys.current(), self.now())
        _require(self.user_limit.take(str(user.user_id), 1))
        return user


class UsageApi:
    """Answers services and users' pages; it changes nothing anywhere."""

    def __init__(
        self, callers: Callers, reader: UsageReader, plans: Plans | None, metrics: Metrics
    ) -> None:
        self._callers = callers
        self._reader = reader
        self._plans = plans
        self._metrics = metrics
        self._turns = {
            ENTITLEMENTS: Turns(ENTITLEMENTS_AT_ONCE),
            USAGE: Turns(USAGE_AT_ONCE),
        }

    async def entitlements(self, request: Request) -> Response:
        """Answer what a user may do."""

        async def work(caller: Caller) -> ApiAnswer:
            scope = entitlements_scope(caller, request.path_params["user_id"])
            if self._plans is None:
                raise ProblemError(NO_PLANS)
            return await self._reader.entitlements(scope, self._plans)

        return await self._answer(ENTITLEMENTS, request, work)

    async def usage(self, request: Request) -> Response:
        """Answer what a user has used."""

        async def work(caller: Caller) -> ApiAnswer:
            query = usage_query(caller, request.query_params, self._callers.now())
            return await self._reader.usage(query)

        return await self._answer(USAGE, request, work)

    async def _answer(
        self, route: str, request: Request, work: Callable[[Caller], Awaitable[ApiAnswer]]
    ) -> Response:
        """Answer a request, whatever it is, and count the answer."""
        began, counted = time.perf_counter(), str(Code.INTERNAL_ERROR)
        try:
            answer = await self._read(route, request, work)
            unchanged = answer.etag == request.headers.get("if-none-match")
            counted = NOT_MODIFIED if unchanged else OK
            return _response(answer, unchanged=unchanged)
        except ProblemError as error:
            counted = error.problem.code
            return problem_response(error.problem)
        finally:
            self._metrics.answered(route, counted, time.perf_counter() - began)

    async def _read(
        self, route: str, request: Request, work: Callable[[Caller], Awaitable[ApiAnswer]]
    ) -> "_Tagged":
        """Do the ``work`` of a request for whoever sends it.

        Raises:
            ProblemError: the request is refused, or can't be answered now.
        """
        caller = self._callers.of(request.headers.get("authorization"))
        try:
            async with self._turns[route].take(), asyncio.timeout(REQUEST_SECONDS):
                return _Tagged.of(await work(caller))
        except TooManyRowsError:
            raise ProblemError(TOO_MANY_ROWS) from None
        except (DatabaseUnavailableError, RowsBusyError) as error:
            problem = Problem(Code.DATABASE_UNAVAILABLE, str(error), retry_after=RETRY_AFTER)
            raise ProblemError(problem) from None
        except NoTurnError:
            raise ProblemError(BUSY) from None
        except TimeoutError:
            raise ProblemError(OVERLOADED) from None


@dataclass(frozen=True, slots=True)
class _Tagged:
    """A body, and its tag, which two bodies share if they differ in nothing but ``as_of``."""

    body: bytes
    etag: str

    @classmethod
    def of(cls, answer: ApiAnswer) -> Self:
        digest = sha256(answer.content.encode()).hexdigest()[:32]
        body = f'{answer.content[:-1]},"as_of":{as_json(answer.as_of)}}}'
        return cls(body.encode(), f'W/"{digest}"')


def _response(answer: _Tagged, *, unchanged: bool) -> Response:
    # `/v1/usage` is one address for every user and every page: a browser keeps their answers apart.
    # One that was kept for a page of our own has no header by which another's may read it.
    headers = {
        "ETag": answer.etag,
        "Cache-Control": f"private, max-age={MAX_AGE}",
        "Vary": "Authorization, Origin",
    }
    if unchanged:
        return Response(status_code=304, headers=headers)
    return Response(answer.body, headers=headers, media_type="application/json")


def application(
    api: UsageApi,
    probes: Sequence[BaseRoute],
    *,
    origins: Sequence[str] = (),
    frame_ancestors: Sequence[str] = (),
    files: BaseRoute | None = None,
) -> ASGIApp:
    """Return the application, which answers every error with a problem."""
    routes: list[BaseRoute] = [
        Route("/v1/entitlements/{user_id}", api.entitlements, methods=["GET"]),
        Route("/v1/usage", api.usage, methods=["GET"]),
        *probes,
        *([] if files is None else [files]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse, Exception: _fail})
    app.router.redirect_slashes = False
    # Outermost, so that a page also sees the errors that are sent last.
    return WithHeaders(
        CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET"],
            allow_headers=["Authorization", "If-None-Match"],
            expose_headers=["ETag", "Retry-After"],
            max_age=CORS_MAX_AGE,
        ),
        frame_ancestors,
    )


async def _refuse(_request: Request, error: Exception) -> Response:
    """Answer what Starlette itself refuses: another path, or another method."""
    allow: Mapping[str, str] = getattr(error, "headers", None) or {}
    is_method = getattr(error, "status_code", None) == 405  # noqa: PLR2004 - HTTP's own number
    code = Code.METHOD_NOT_ALLOWED if is_method else Code.NOT_FOUND
    response = problem_response(
        Problem(code, "the API is GET /v1/usage and GET /v1/entitlements/{user_id}")
    )
    response.headers.update(allow)
    return response


async def _fail(_request: Request, _error: Exception) -> Response:
    return problem_response(Problem(Code.INTERNAL_ERROR, "send the same request again later"))


def _require(wait: int) -> None:
    if wait:
        detail = "too many requests to this process"
        raise ProblemError(Problem(Code.RATE_LIMITED, detail, retry_after=wait))
