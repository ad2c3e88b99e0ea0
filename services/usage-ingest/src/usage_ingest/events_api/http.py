"""`POST /v1/events`: 202 says that the broker has confirmed every event of the request."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nexus_contracts.fields import trace_context
from nexus_messaging.errors import PublishError, PublishTimeoutError
from nexus_messaging.message import Message
from nexus_messaging.outage_log import OutageLog
from nexus_messaging.publisher import Publication
from nexus_messaging.topology import EVENTS
from nexus_service.api_keys import ApiKey, key_of
from nexus_service.asgi import problem_response
from nexus_service.problems import RETRY_AFTER, UNAUTHORIZED, Code, Problem, ProblemError
from nexus_service.rate_limit import RateLimiter
from usage_ingest.events_api.bodies import Bodies
from usage_ingest.events_api.metrics import CONFIRMED, DISCONNECTED, Metrics
from usage_ingest.events_api.reading import (
    Refused,
    bodies_of,
    form_of,
    problem_of,
    read_message,
)

PUBLISH_SECONDS: Final = 5.0
"""For the confirms of a whole request: a broker in alarm neither confirms nor refuses."""

UPGRADE: Final = Problem(Code.INVALID, "send HTTP/1.1 without Upgrade: the body was not read")
"""For what Java's HttpClient and ``curl --http2`` send to http://: httptools drops its body."""

EVENTS_WITHOUT_PAUSE: Final = 20
"""Events that are validated before other requests and probes have their turn."""

log = structlog.get_logger()


class EventPublisher(Protocol):
    """The methods of ``nexus_messaging.publisher.Publisher`` that the API uses."""

    @property
    def connected(self) -> bool:
        """Whether a publish could succeed now."""

    async def publish_all(self, publications: Sequence[Publication]) -> list[PublishError | None]:
        """Publish concurrently; return, in the same order, the error of each or ``None``."""


class EventsApi:
    """Publishes what holders of an API key send."""

    def __init__(
        self,
        keys: tuple[ApiKey, ...],
        limit: RateLimiter,
        publisher: EventPublisher,
        metrics: Metrics,
    ) -> None:
        self._keys = keys
        self._limit = limit
        self._publisher = publisher
        self._metrics = metrics
        self._bodies = Bodies(metrics.in_hand)
        self._outage = OutageLog(_log_failure, _log_recovery)

    async def accept(self, request: Request) -> Response:
        """Answer a request, whatever it is, and count the answer."""
        began, answer = time.perf_counter(), str(Code.INTERNAL_ERROR)
        try:
            accepted = await self._publish(request)
            answer = CONFIRMED
            return JSONResponse({"accepted": accepted}, 202)
        except ProblemError as error:
            answer = error.problem.code
            return problem_response(error.problem)
        except ClientDisconnect:
            answer = DISCONNECTED
            return Response(status_code=400)
        finally:
            self._metrics.answered(answer, time.perf_counter() - began)

    async def _publish(self, request: Request) -> int:
        """Publish the events of a request and return their number.

        Raises:
            ProblemError: the request is refused, or not all events are confirmed.
            ClientDisconnect: the client closed the connection within its body.
        """
        headers = dict(request.headers.items())
        key = key_of(headers.get("authorization"), self._keys)
        if key is None:
            raise ProblemError(UNAUTHORIZED)
        if "upgrade" in headers.get("connection", "").lower():
            raise ProblemError(UPGRADE)
        form = form_of(headers)
        if not self._publisher.connected:
            raise ProblemError(_unavailable("the broker can't be reached"))
        async with self._bodies.reading(request) as body:
            bodies = bodies_of(form, headers, body)
            if wait := self._limit.take(key.name, max(1, len(bodies))):
                detail = "this key has sent too many events to this process"
                raise ProblemError(Problem(Code.RATE_LIMITED, detail, retry_after=wait))
            messages = await _messages(bodies, key, trace_context(headers.get("traceparent")))
            await self._send(messages)
        return len(messages)

    async def _send(self, messages: Sequence[Message]) -> None:
        # Messages with one id wait for each other, so copies of an event could take all the time.
        distinct = {each.body: each for each in messages}.values()
        publications = [Publication(EVENTS, str(each.type), each) for each in distinct]
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                errors = await self._publisher.publish_all(publications)
        except TimeoutError:
            errors = [PublishTimeoutError(f"no confirm within {PUBLISH_SECONDS:.0f} s")]
        self._outage.round(errors)
        if failures := [error for error in errors if error is not None]:
            raise ProblemError(_unavailable(f"not all is confirmed: {failures[0]}"))
        self._metrics.confirmed(Counter(each.routing_key for each in publications))


async def _messages(
    bodies: Sequence[bytes], key: ApiKey, traceparent: str | None
) -> Sequence[Message]:
    """Return the message of each event.

    Raises:
        ProblemError: it names every event that is refused.
    """
    messages, refused = [], {}
    for index, body in enumerate(bodies):
        read = read_message(body, key, traceparent)
        if isinstance(read, Refused):
            refused[index] = read
        else:
            messages.append(read)
        if index % EVENTS_WITHOUT_PAUSE == EVENTS_WITHOUT_PAUSE - 1:
            await asyncio.sleep(0)
    if refused:
        raise ProblemError(problem_of(refused))
    return messages


def application(api: EventsApi, probes: Sequence[Route]) -> Starlette:
    """Return the application, which answers every error with a problem."""
    app = Starlette(
        routes=[Route("/v1/events", api.accept, methods=["POST"]), *probes],
        exception_handlers={HTTPException: _refuse, Exception: _fail},
    )
    # Behind a proxy that ends TLS, it would redirect to http://, and the key would follow in clear.
    app.router.redirect_slashes = False
    return app


async def _refuse(_request: Request, error: Exception) -> Response:
    """Answer what Starlette itself refuses: another path, or another method."""
    allow: Mapping[str, str] = getattr(error, "headers", None) or {}
    is_method = getattr(error, "status_code", None) == 405  # noqa: PLR2004 - HTTP's own number
    code = Code.METHOD_NOT_ALLOWED if is_method else Code.NOT_FOUND
    response = problem_response(Problem(code, "the API is POST /v1/events"))
    response.headers.update(allow)
    return response


async def _fail(_request: Request, _error: Exception) -> Response:
    return problem_response(Problem(Code.INTERNAL_ERROR, "send the same request again later"))


def _unavailable(detail: str) -> Problem:
    again = "send the whole request again, with the same ids"
    return Problem(Code.BROKER_UNAVAILABLE, f"{detail}; {again}", retry_after=RETRY_AFTER)


def _log_failure(errors: Sequence[PublishError]) -> None:
    log.warning("events_not_accepted", events=len(errors), cause=str(errors[0]))


def _log_recovery(failed: int) -> None:
    log.info("events_accepted_again", failed=failed)
