"""The endpoints of events and of the webhook endpoints that they are sent to."""

from typing import Final

from stripe_emulator.endpoints import Endpoint, resource
from stripe_emulator.event_log import LIST_EVENTS
from stripe_emulator.parameters import NOTHING
from stripe_emulator.thin_events import LIST_THIN_EVENTS
from stripe_emulator.thin_events import URL as THIN_EVENTS
from stripe_emulator.webhook_endpoints import CREATE_ENDPOINT, LIST_ENDPOINTS, UPDATE_ENDPOINT

_ENDPOINTS, _ENDPOINT = "/v1/webhook_endpoints", "/v1/webhook_endpoints/{id}"

WEBHOOKS: Final[tuple[Endpoint, ...]] = (
    *resource(
        "event",
        ("GET", "/v1/events", LIST_EVENTS, lambda a, _, p: a.event_log.listed(p)),
        ("GET", "/v1/events/{id}", NOTHING, lambda a, i, _: a.event_log.get_snapshot(i)),
        ("GET", THIN_EVENTS, LIST_THIN_EVENTS, lambda a, _, p: a.event_log.listed_thin(p)),
        ("GET", f"{THIN_EVENTS}/{{id}}", NOTHING, lambda a, i, _: a.event_log.get_thin(i)),
    ),
    *resource(
        "webhook",
        (
            "POST",
            _ENDPOINTS,
            CREATE_ENDPOINT,
            lambda a, _, p: a.webhook_endpoints.create(p, a.clock.now()),
        ),
        ("GET", _ENDPOINTS, LIST_ENDPOINTS, lambda a, _, p: a.webhook_endpoints.listed(p)),
        ("GET", _ENDPOINT, NOTHING, lambda a, i, _: a.webhook_endpoints.get(i)),
        (
            "POST",
            _ENDPOINT,
            UPDATE_ENDPOINT,
            lambda a, i, p: a.webhook_endpoints.update(i, p, a.clock.now()),
        ),
        (
            "DELETE",
            _ENDPOINT,
            NOTHING,
            lambda a, i, _: a.webhook_endpoints.delete(i, a.clock.now()),
        ),
    ),
)
