"""The endpoints of the v1 API: address, parameters, permission, and what each calls."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from stripe_emulator.account import Account
from stripe_emulator.customers import LIST_CUSTOMERS, WRITE_CUSTOMER
from stripe_emulator.errors import unrecognized_url
from stripe_emulator.events import CANCEL_EVENT, CREATE_EVENT
from stripe_emulator.meters import CREATE_METER, LIST_METERS, UPDATE_METER
from stripe_emulator.parameters import Parameters
from stripe_emulator.search import SEARCH_CUSTOMERS
from stripe_emulator.summaries import LIST_SUMMARIES

Effect: TypeAlias = Callable[[Account, str, dict[str, Any]], Mapping[str, Any]]
Row: TypeAlias = tuple[str, str, Parameters, Effect]

EVENTS_PATH = "/v1/billing/meter_events"
_CANCELS = "/v1/billing/meter_event_adjustments"
_CUSTOMERS, _CUSTOMER = "/v1/customers", "/v1/customers/{id}"
_METERS, _METER = "/v1/billing/meters", "/v1/billing/meters/{id}"
_NOTHING = Parameters({})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint; its effect gets the account, the id in the path and the parameters."""

    method: str
    pattern: re.Pattern[str]
    parameters: Parameters
    permission: str
    effect: Effect


def _resource(name: str, *rows: Row) -> Iterator[Endpoint]:
    """Make the endpoints of a resource, which is named in the permissions for them."""
    for method, path, parameters, effect in rows:
        permission = f"rak_{name}_{'read' if method == 'GET' else 'write'}"
        pattern = re.compile(path.replace("{id}", "(?P<id>[^/]+)"))
        yield Endpoint(method, pattern, parameters, permission, effect)


_ENDPOINTS: tuple[Endpoint, ...] = (
    *_resource(
        "billing_meter_event",
        ("POST", EVENTS_PATH, CREATE_EVENT, lambda a, _, p: a.record_event(p)),
    ),
    *_resource(
        "billing_meter_event_adjustment",
        ("POST", _CANCELS, CANCEL_EVENT, lambda a, _, p: a.cancel_event(p)),
    ),
    # The search comes before the retrieval, whose pattern matches its address too.
    *_resource(
        "customer",
        ("POST", _CUSTOMERS, WRITE_CUSTOMER, lambda a, _, p: a.customers.create(p, a.clock.now())),
        ("GET", _CUSTOMERS, LIST_CUSTOMERS, lambda a, _, p: a.customers.listed(p)),
        ("GET", f"{_CUSTOMERS}/search", SEARCH_CUSTOMERS, lambda a, _, p: a.search_customers(p)),
        ("GET", _CUSTOMER, _NOTHING, lambda a, i, _: a.customers.retrieve(i)),
        (
            "POST",
            _CUSTOMER,
            WRITE_CUSTOMER,
            lambda a, i, p: a.customers.update(i, p, a.clock.now()),
        ),
        ("DELETE", _CUSTOMER, _NOTHING, lambda a, i, _: a.customers.delete(i, a.clock.now())),
    ),
    *_resource(
        "billing_meter",
        ("POST", _METERS, CREATE_METER, lambda a, _, p: a.meters.create(p, a.clock.now()).view()),
        ("GET", _METERS, LIST_METERS, lambda a, _, p: a.meters.listed(p)),
        ("GET", _METER, _NOTHING, lambda a, i, _: a.meters.get(i).view()),
        ("POST", _METER, UPDATE_METER, lambda a, i, p: a.meters.rename(i, p, a.clock.now()).view()),
        (
            "POST",
            f"{_METER}/deactivate",
            _NOTHING,
            lambda a, i, _: a.meters.deactivate(i, a.clock.now()).view(),
        ),
        (
            "POST",
            f"{_METER}/reactivate",
            _NOTHING,
            lambda a, i, _: a.meters.reactivate(i, a.clock.now()).view(),
        ),
        ("GET", f"{_METER}/event_summaries", LIST_SUMMARIES, lambda a, i, p: a.summarise(i, p)),
    ),
)


def find(method: str, path: str) -> tuple[Endpoint, str]:
    """Return the endpoint at an address, and the id in it (empty where it has none).

    Raises:
        StripeError: 404 when there is no such endpoint.
    """
    for endpoint in _ENDPOINTS:
        match = endpoint.pattern.fullmatch(path)
        if match is not None and endpoint.method == method:
            return endpoint, match.groupdict().get("id", "")
    raise unrecognized_url(method, path)
