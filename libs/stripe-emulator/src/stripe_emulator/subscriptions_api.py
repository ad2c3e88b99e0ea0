"""The endpoints of subscriptions, their items and what customers are entitled to by them."""

from typing import Final

from stripe_emulator.endpoints import Endpoint, resource
from stripe_emulator.features import LIST_ENTITLEMENTS
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

SUBSCRIPTIONS: Final[tuple[Endpoint, ...]] = (
    *resource(
        "subscription",
        ("POST", _SUBSCRIPTIONS, CREATE_SUBSCRIPTION, lambda a, _, p: a.create_subscription(p)),
        ("GET", _SUBSCRIPTIONS, LIST_SUBSCRIPTIONS, lambda a, _, p: a.subscriptions.listed(p)),
        ("GET", _SUBSCRIPTION, NOTHING, lambda a, i, _: a.subscriptions.get(i)),
        ("POST", _SUBSCRIPTION, UPDATE_SUBSCRIPTION, lambda a, i, p: a.subscriptions.update(i, p)),
        ("DELETE", _SUBSCRIPTION, CANCEL_SUBSCRIPTION, lambda a, i, _: a.subscriptions.cancel(i)),
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
