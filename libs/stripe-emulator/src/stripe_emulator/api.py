"""The endpoints of the v1 API: address, parameters, permission, and what each calls."""

from stripe_emulator.catalogue_api import CATALOGUE
from stripe_emulator.clocks_api import CLOCKS
from stripe_emulator.customers import CREATE_CUSTOMER, LIST_CUSTOMERS, UPDATE_CUSTOMER
from stripe_emulator.endpoints import Endpoint, resource
from stripe_emulator.errors import unrecognized_url
from stripe_emulator.events import CANCEL_EVENT, CREATE_EVENT
from stripe_emulator.meters import CREATE_METER, LIST_METERS, UPDATE_METER
from stripe_emulator.parameters import NOTHING
from stripe_emulator.search import SEARCH
from stripe_emulator.subscriptions_api import SUBSCRIPTIONS
from stripe_emulator.summaries import LIST_SUMMARIES
from stripe_emulator.webhooks_api import WEBHOOKS

EVENTS_PATH = "/v1/billing/meter_events"
_CANCELS = "/v1/billing/meter_event_adjustments"
_CUSTOMERS, _CUSTOMER = "/v1/customers", "/v1/customers/{id}"
_METERS, _METER = "/v1/billing/meters", "/v1/billing/meters/{id}"

_ENDPOINTS: tuple[Endpoint, ...] = (
    *resource(
        "billing_meter_event",
        ("POST", EVENTS_PATH, CREATE_EVENT, lambda a, _, p: a.record_event(p)),
    ),
    *resource(
        "billing_meter_event_adjustment",
        ("POST", _CANCELS, CANCEL_EVENT, lambda a, _, p: a.cancel_event(p)),
    ),
    # The search comes before the retrieval, whose pattern matches its address too.
    *resource(
        "customer",
        ("POST", _CUSTOMERS, CREATE_CUSTOMER, lambda a, _, p: a.create_customer(p)),
        ("GET", _CUSTOMERS, LIST_CUSTOMERS, lambda a, _, p: a.customers.listed(p)),
        ("GET", f"{_CUSTOMERS}/search", SEARCH, lambda a, _, p: a.search_customers(p)),
        ("GET", _CUSTOMER, NOTHING, lambda a, i, _: a.customers.retrieve(i)),
        (
            "POST",
            _CUSTOMER,
            UPDATE_CUSTOMER,
            lambda a, i, p: a.customers.update(i, p, a.clock.now()),
        ),
        ("DELETE", _CUSTOMER, NOTHING, lambda a, i, _: a.delete_customer(i)),
    ),
    *resource(
        "billing_meter",
        ("POST", _METERS, CREATE_METER, lambda a, _, p: a.meters.create(p, a.clock.now()).view()),
        ("GET", _METERS, LIST_METERS, lambda a, _, p: a.meters.listed(p)),
        ("GET", _METER, NOTHING, lambda a, i, _: a.meters.get(i).view()),
        ("POST", _METER, UPDATE_METER, lambda a, i, p: a.meters.rename(i, p, a.clock.now()).view()),
        (
            "POST",
            f"{_METER}/deactivate",
            NOTHING,
            lambda a, i, _: a.meters.deactivate(i, a.clock.now()).view(),
        ),
        (
            "POST",
            f"{_METER}/reactivate",
            NOTHING,
            lambda a, i, _: a.meters.reactivate(i, a.clock.now()).view(),
        ),
        ("GET", f"{_METER}/event_summaries", LIST_SUMMARIES, lambda a, i, p: a.summarise(i, p)),
    ),
    *CATALOGUE,
    *CLOCKS,
    *SUBSCRIPTIONS,
    *WEBHOOKS,
)


def find(method: str, path: str) -> tuple[Endpoint, dict[str, str]]:
    """Return the endpoint at an address, and the ids in it by their names.

    Raises:
        StripeError: 404 when there is no such endpoint.
    """
    for endpoint in _ENDPOINTS:
        match = endpoint.pattern.fullmatch(path)
        if match is not None and endpoint.method == method:
            return endpoint, match.groupdict()
    raise unrecognized_url(method, path)
