"""The endpoints of the v1 API: address, parameters, permission, and what each calls."""

import re
from collections.abc import Callable, Mapping
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
EVENTS_PATH = "/v1/billing/meter_events"
_CUSTOMERS_PATH = "/v1/customers"
_METERS_PATH = "/v1/billing/meters"
_NOTHING = Parameters({})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint; its effect gets the account, the id in the path and the parameters."""

    method: str
    pattern: re.Pattern[str]
    parameters: Parameters
    permission: str
    effect: Effect


def _endpoint(
    method: str, template: str, parameters: Parameters, resource: str, effect: Effect
) -> Endpoint:
    permission = f"rak_{resource}_{'read' if method == 'GET' else 'write'}"
    pattern = re.compile(template.replace("{id}", "(?P<id>[^/]+)"))
    return Endpoint(method, pattern, parameters, permission, effect)


# The search comes before the retrieval, whose pattern matches its address too.
_ENDPOINTS: tuple[Endpoint, ...] = (
    _endpoint(
        "POST",
        EVENTS_PATH,
        CREATE_EVENT,
        "billing_meter_event",
        lambda account, _, params: account.record_event(params),
    ),
    _endpoint(
        "POST",
        "/v1/billing/meter_event_adjustments",
        CANCEL_EVENT,
        "billing_meter_event_adjustment",
        lambda account, _, params: account.cancel_event(params),
    ),
    _endpoint(
        "POST",
        _CUSTOMERS_PATH,
        WRITE_CUSTOMER,
        "customer",
        lambda account, _, params: account.customers.create(params, account.clock.now()),
    ),
    _endpoint(
        "GET",
        _CUSTOMERS_PATH,
        LIST_CUSTOMERS,
        "customer",
        lambda account, _, params: account.customers.listed(params),
    ),
    _endpoint(
        "GET",
        f"{_CUSTOMERS_PATH}/search",
        SEARCH_CUSTOMERS,
        "customer",
        lambda account, _, params: account.search_customers(params),
    ),
    _endpoint(
        "GET",
        f"{_CUSTOMERS_PATH}/{{id}}",
        _NOTHING,
        "customer",
        lambda account, id_, _: account.customers.retrieve(id_),
    ),
    _endpoint(
        "POST",
        f"{_CUSTOMERS_PATH}/{{id}}",
        WRITE_CUSTOMER,
        "customer",
        lambda account, id_, params: account.customers.update(id_, params, account.clock.now()),
    ),
    _endpoint(
        "DELETE",
        f"{_CUSTOMERS_PATH}/{{id}}",
        _NOTHING,
        "customer",
        lambda account, id_, _: account.customers.delete(id_, account.clock.now()),
    ),
    _endpoint(
        "POST",
        _METERS_PATH,
        CREATE_METER,
        "billing_meter",
        lambda account, _, params: account.meters.create(params, account.clock.now()).view(),
    ),
    _endpoint(
        "GET",
        _METERS_PATH,
        LIST_METERS,
        "billing_meter",
        lambda account, _, params: account.meters.listed(params),
    ),
    _endpoint(
        "GET",
        f"{_METERS_PATH}/{{id}}",
        _NOTHING,
        "billing_meter",
        lambda account, id_, _: account.meters.get(id_).view(),
    ),
    _endpoint(
        "POST",
        f"{_METERS_PATH}/{{id}}",
        UPDATE_METER,
        "billing_meter",
        lambda account, id_, params: account.meters.rename(id_, params, account.clock.now()).view(),
    ),
    _endpoint(
        "POST",
        f"{_METERS_PATH}/{{id}}/deactivate",
        _NOTHING,
        "billing_meter",
        lambda account, id_, _: account.meters.deactivate(id_, account.clock.now()).view(),
    ),
    _endpoint(
        "POST",
        f"{_METERS_PATH}/{{id}}/reactivate",
        _NOTHING,
        "billing_meter",
        lambda account, id_, _: account.meters.reactivate(id_, account.clock.now()).view(),
    ),
    _endpoint(
        "GET",
        f"{_METERS_PATH}/{{id}}/event_summaries",
        LIST_SUMMARIES,
        "billing_meter",
        lambda account, id_, params: account.summarise(id_, params),
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
