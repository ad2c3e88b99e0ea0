"""Takes Stripe's webhooks: each becomes a message of ours, and is answered once that is confirmed.

From there on retries and dead letters are those of every message. Whatever is not answered with a
2xx, Stripe sends again for three days (https://docs.stripe.com/webhooks#automatic-retries).
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import NAMESPACE_URL, uuid5

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram
from pydantic import SecretStr

from nexus_contracts import Event, StripeChanged
from nexus_messaging.errors import PublishError
from nexus_messaging.outgoing import send
from nexus_messaging.publisher import Publisher
from nexus_service.http import problem_response
from nexus_service.problems import RETRY_AFTER, Code, Problem, ProblemError
from nexus_service.request_bodies import read_body
from nexus_stripe.signatures import SignatureFault, signature_fault
from nexus_stripe.webhook_events import read_webhook

PATH: Final = "/webhooks/stripe"

MAX_WEBHOOK_BYTES: Final = 1024 * 1024
"""Of a body that is read before its signature can be checked. Events have a few kilobytes."""

_EVENT_IDS: Final = uuid5(NAMESPACE_URL, "https://docs.stripe.com/api/events")
"""The namespace of our events' ids: an event that Stripe sends twice has one id."""

_UNSIGNED: Final = Problem(Code.INVALID, "the Stripe-Signature is missing, wrong or too old")
_UNREADABLE: Final = Problem(Code.INVALID, "the body is no event of Stripe's")
_UNCONFIRMED: Final = Problem(
    Code.BROKER_UNAVAILABLE,
    "the broker has not confirmed the event; send it again",
    retry_after=RETRY_AFTER,
)

log = structlog.get_logger()


class WebhookOutcome(StrEnum):
    """What became of a request to the endpoint, beside the faults of a signature."""

    PUBLISHED = "published"
    """It is a message in a queue."""
    IGNORED = "ignored"
    """Stripe's, and of a type that the service has no use for."""
    OTHER_MODE = "other_mode"
    """Stripe's, and of live mode at a service of test mode, or the reverse."""
    UNREADABLE = "unreadable"
    """No request as Stripe makes it, or signed by Stripe and not understood."""
    UNCONFIRMED = "unconfirmed"
    """The broker has not confirmed it: Stripe sends it again."""


class WebhookMetrics:
    """What came of webhooks; each label value is born at 0, so that its first increase shows."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        prefix = service.replace("-", "_")
        # Requests to the webhook endpoint, see `WebhookOutcome` and `SignatureFault`.
        self._webhooks = Counter(
            f"{prefix}_stripe_webhooks", "Webhooks of Stripe", ["outcome"], registry=registry
        )
        # From the event at Stripe to its confirmed message; hours if Stripe had to repeat it.
        self._lag = Histogram(
            f"{prefix}_stripe_webhook_lag_seconds",
            "Time until a webhook's message is confirmed",
            buckets=(1, 5, 30, 300, 3600, 6 * 3600, 86400, 3 * 86400),
            registry=registry,
        )
        for outcome in (*WebhookOutcome, *SignatureFault):
            self._webhooks.labels(outcome.value)

    def count(self, outcome: WebhookOutcome | SignatureFault) -> None:
        """Count a request."""
        self._webhooks.labels(outcome.value).inc()

    def published(self, seconds: float) -> None:
        """Count a confirmed message and how long after its event it was."""
        self.count(WebhookOutcome.PUBLISHED)
        self._lag.observe(max(0.0, seconds))


class WebhookRoutes:
    """`POST /webhooks/stripe`, for Stripe alone: its signature is the only key.

    Args:
        source: The service, as the source of its messages.
        secrets: See ``WebhookSettings``; without any there is no route.
        livemode: The mode of the service's API key, see ``is_live``.
        wanted: The types of events that become messages; ``customer.subscription.*`` is all whose
            type begins so. The rest is answered with 200, as Stripe would repeat it otherwise.
        publisher: Raises PublishError until the broker is connected.
        metrics: What is counted.
        now: The time.
        kind: The event that a webhook becomes, which names the queue of ours that it goes to.
    """

    def __init__(
        self,
        source: str,
        secrets: Sequence[SecretStr],
        *,
        livemode: bool,
        wanted: Collection[str],
        publisher: Callable[[], Publisher],
        metrics: WebhookMetrics,
        now: Callable[[], datetime],
        kind: type[StripeChanged] = StripeChanged,
    ) -> None:
        self._source = source
        self._kind = kind
        self._secrets = secrets
        self._livemode = livemode
        self._types = frozenset(type_ for type_ in wanted if not type_.endswith("*"))
        self._prefixes = tuple(type_[:-1] for type_ in wanted if type_.endswith("*"))
        self._publisher = publisher
        self._metrics = metrics
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post(PATH, self._answer)] if self._secrets else []

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            outcome = await self._accept(request)
        except ProblemError as error:
            return problem_response(error.problem)
        return web.json_response({"outcome": outcome})

    async def _accept(self, request: web.Request) -> WebhookOutcome:
        """Publish a webhook and return once the broker has confirmed it.

        Raises:
            ProblemError: it is not published.
        """
        try:
            body = await read_body(request, MAX_WEBHOOK_BYTES)
        except ProblemError as error:
            raise self._refusal(WebhookOutcome.UNREADABLE, error.problem) from None
        fault = signature_fault(body, request.headers.get("Stripe-Signature"), self._secrets)
        if fault is not None:
            raise self._refusal(fault, _UNSIGNED)
        changed = read_webhook(body)
        if changed is None:
            log.warning("webhook_not_understood")
            raise self._refusal(WebhookOutcome.UNREADABLE, _UNREADABLE)
        if changed.livemode is not self._livemode:
            log.warning("webhook_of_other_mode", event_id=changed.event_id)
            raise self._refusal(WebhookOutcome.OTHER_MODE, self._other_mode())

        if not self._is_wanted(changed.event_type):
            self._metrics.count(WebhookOutcome.IGNORED)
            return WebhookOutcome.IGNORED
        await self._publish(changed)
        return WebhookOutcome.PUBLISHED

    async def _publish(self, changed: StripeChanged) -> None:
        now = self._now()
        id_ = uuid5(_EVENT_IDS, changed.event_id)
        data = self._kind.model_validate(dict(changed))
        event = Event.of(data, source=self._source, id=id_, time=now)
        try:
            await send(self._publisher(), event)
        except PublishError:
            raise self._refusal(WebhookOutcome.UNCONFIRMED, _UNCONFIRMED) from None
        self._metrics.published((self._now() - changed.created).total_seconds())

    def _is_wanted(self, event_type: str) -> bool:
        return event_type in self._types or event_type.startswith(self._prefixes)

    def _other_mode(self) -> Problem:
        mode, other = ("live", "test") if self._livemode else ("test", "live")
        return Problem(Code.FORBIDDEN, f"an event of {other} mode, and this service is of {mode}")

    def _refusal(self, outcome: WebhookOutcome | SignatureFault, problem: Problem) -> ProblemError:
        self._metrics.count(outcome)
        return ProblemError(problem)
