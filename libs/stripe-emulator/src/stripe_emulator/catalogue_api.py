"""The endpoints of what can be sold: products, prices and features."""

from typing import Final

from stripe_emulator.endpoints import Endpoint, resource
from stripe_emulator.features import (
    ATTACH_FEATURE,
    CREATE_FEATURE,
    LIST_ATTACHED,
    LIST_FEATURES,
    UPDATE_FEATURE,
)
from stripe_emulator.parameters import NOTHING
from stripe_emulator.price_parameters import CREATE_PRICE, LIST_PRICES, UPDATE_PRICE
from stripe_emulator.products import CREATE_PRODUCT, LIST_PRODUCTS, UPDATE_PRODUCT
from stripe_emulator.search import SEARCH

_PRODUCTS, _PRODUCT = "/v1/products", "/v1/products/{id}"
_PRICES, _PRICE = "/v1/prices", "/v1/prices/{id}"
_FEATURES, _FEATURE = "/v1/entitlements/features", "/v1/entitlements/features/{id}"

# A search comes before the retrieval, whose pattern matches its address too.
CATALOGUE: Final[tuple[Endpoint, ...]] = (
    *resource(
        "product",
        ("POST", _PRODUCTS, CREATE_PRODUCT, lambda a, _, p: a.products.create(p, a.clock.now())),
        ("GET", _PRODUCTS, LIST_PRODUCTS, lambda a, _, p: a.products.listed(p)),
        ("GET", f"{_PRODUCTS}/search", SEARCH, lambda a, _, p: a.search_products(p)),
        ("GET", _PRODUCT, NOTHING, lambda a, i, _: a.products.objects.get(i)),
        ("POST", _PRODUCT, UPDATE_PRODUCT, lambda a, i, p: a.update_product(i, p)),
        ("DELETE", _PRODUCT, NOTHING, lambda a, i, _: a.delete_product(i)),
        expandable=("default_price",),
    ),
    *resource(
        "product",
        ("POST", f"{_PRODUCT}/features", ATTACH_FEATURE, lambda a, i, p: a.features.attach(i, p)),
        ("GET", f"{_PRODUCT}/features", LIST_ATTACHED, lambda a, i, p: a.features.attached(i, p)),
        (
            "DELETE",
            f"{_PRODUCT}/features/{{feature}}",
            NOTHING,
            lambda a, i, p: a.features.detach(i, p["feature"]),
        ),
    ),
    # Restricted keys call the permission for prices by what came before prices.
    *resource(
        "plan",
        ("POST", _PRICES, CREATE_PRICE, lambda a, _, p: a.prices.create(p, a.clock.now())),
        ("GET", _PRICES, LIST_PRICES, lambda a, _, p: a.prices.listed(p)),
        ("GET", f"{_PRICES}/search", SEARCH, lambda a, _, p: a.search_prices(p)),
        ("GET", _PRICE, NOTHING, lambda a, i, _: a.prices.objects.get(i)),
        ("POST", _PRICE, UPDATE_PRICE, lambda a, i, p: a.prices.update(i, p, a.clock.now())),
        expandable=("product", "tiers"),
    ),
    *resource(
        "entitlements",
        ("POST", _FEATURES, CREATE_FEATURE, lambda a, _, p: a.features.create(p, a.clock.now())),
        ("GET", _FEATURES, LIST_FEATURES, lambda a, _, p: a.features.listed(p)),
        ("GET", _FEATURE, NOTHING, lambda a, i, _: a.features.objects.get(i)),
        ("POST", _FEATURE, UPDATE_FEATURE, lambda a, i, p: a.features.update(i, p, a.clock.now())),
    ),
)
