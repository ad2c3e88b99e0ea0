"""The endpoints of subscriptions, their items, their invoices and what they entitle to."""

from typing import Final

from stripe_emulator.endpoints import Endpoint, resource
from stripe_emulator.features import LIST_ENTITLEMENTS
from stripe_emulator.invoices import LIST_INVOICES, LIST_LINES
from stripe_emulator.parameters import NOTHING
from stripe_emulator.subscription_parameters import (
    CANCEL_SUBSCRIPTION,
    CREATE_ITEM,
    CREATE_SUBSCRIPTION,
    DELETE_ITEM,
    LIST_ITEMS,
    LIST_SUBSCRIPTIONS,
    UPDATE_ITEM,
    UPDATE_SUBSCRIPTION,
)

_SUBSCRIPTIONS, _SUBSCRIPTION = "/v1/subscriptions", "/v1/subscriptions/{id}"
_ITEMS, _ITEM = "/v1/subscription_items", "/v1/subscription_items/{id}"
_INVOICES, _INVOICE = "/v1/invoices", "/v1/invoices/{id}"

SUBSCRIPTIONS: Final[tuple[Endpoint, ...]] = (
    *resource(
        "subscription",
        ("POST", _SUBSCRIPTIONS, CREATE_SUBSCRIPTION, lambda a, _, p: a.create_subscription(p)),
        ("GET", _SUBSCRIPTIONS, LIST_SUBSCRIPTIONS, lambda a, _, p: a.subscriptions.listed(p)),
        ("GET", _SUBSCRIPTION, NOTHING, lambda a, i, _: a.subscriptions.get(i)),
        ("POST", _SUBSCRIPTION, UPDATE_SUBSCRIPTION, lambda a, i, p: a.subscriptions.update(i, p)),
        (
            "DELETE",
            _SUBSCRIPTION,
            CANCEL_SUBSCRIPTION,
            lambda a, i, p: a.subscriptions.cancel(i, invoice_now=p.get("invoice_now", False)),
        ),
        expandable=("customer", "items.data.price.product", "items.data.price.tiers"),
    ),
    *resource(
        "subscription",
        ("POST", _ITEMS, CREATE_ITEM, lambda a, _, p: a.subscriptions.add_item(p)),
        ("GET", _ITEMS, LIST_ITEMS, lambda a, _, p: a.subscriptions.listed_items(p)),
        ("GET", _ITEM, NOTHING, lambda a, i, _: a.subscriptions.item(i)),
        ("POST", _ITEM, UPDATE_ITEM, lambda a, i, p: a.subscriptions.update_item(i, p)),
        ("DELETE", _ITEM, DELETE_ITEM, lambda a, i, _: a.subscriptions.delete_item(i)),
        expandable=("price.product", "price.tiers"),
    ),
    *resource(
        "invoice",
        ("GET", _INVOICES, LIST_INVOICES, lambda a, _, p: a.invoices.listed(p)),
        ("GET", _INVOICE, NOTHING, lambda a, i, _: a.invoices.get(i)),
        ("GET", f"{_INVOICE}/lines", LIST_LINES, lambda a, i, p: a.invoices.lines(i, p)),
    ),
    *resource(
        "entitlements",
        (
            "GET",
            "/v1/entitlements/active_entitlements",
            LIST_ENTITLEMENTS,
            lambda a, _, p: a.list_entitlements(p),
        ),
        expandable=("feature",),
    ),
)
