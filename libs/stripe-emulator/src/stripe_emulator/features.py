"""Features, which products have, and the entitlements that a customer gets by them."""

from collections.abc import Iterable
from typing import Any

from stripe_emulator.errors import no_such, refused
from stripe_emulator.ids import derived_id, new_id
from stripe_emulator.objects import Objects
from stripe_emulator.pages import page
from stripe_emulator.parameters import (
    PAGING,
    Boolean,
    Metadata,
    Parameters,
    Text,
    merged_metadata,
)
from stripe_emulator.products import Products

_URL = "/v1/entitlements/features"
_ENTITLEMENTS_URL = "/v1/entitlements/active_entitlements"
CREATE_FEATURE = Parameters(
    {"lookup_key": Text(80), "metadata": Metadata(), "name": Text(80)}, ("lookup_key", "name")
)
UPDATE_FEATURE = Parameters({"active": Boolean(), "metadata": Metadata(), "name": Text(80)})
LIST_FEATURES = Parameters({**PAGING, "archived": Boolean(), "lookup_key": Text(80)})
ATTACH_FEATURE = Parameters({"entitlement_feature": Text()}, ("entitlement_feature",))
LIST_ATTACHED = Parameters(PAGING)
LIST_ENTITLEMENTS = Parameters({**PAGING, "customer": Text()}, ("customer",))


class Features:
    """All features of the account, and which product has which."""

    def __init__(self, products: Products) -> None:
        self._products = products
        self.objects = Objects("feature")
        self._attached: dict[str, dict[str, str]] = {}
        """By product: the id of a product's feature, and the feature."""

    def create(self, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Create a feature; its lookup key is its own for ever."""
        key = params["lookup_key"]
        if any(one["lookup_key"] == key for one in self.objects.newest_first()):
            message = f"A feature already uses the lookup key `{key}`."
            raise refused(message, "lookup_key", "resource_already_exists")
        feature = {
            "id": new_id("feat_test", 24),
            "object": "entitlements.feature",
            "active": True,
            "livemode": False,
            "lookup_key": key,
            "metadata": params.get("metadata", {}),
            "name": params["name"],
        }
        return self.objects.put(feature, now)

    def update(self, id_: str, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Change the given fields; an inactive feature is archived."""
        before = self.objects.get(id_)
        metadata = merged_metadata(before["metadata"], params.get("metadata", {"": ""}))
        return self.objects.put({**before, **params, "metadata": metadata}, now)

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of the features that are not archived, or of those that are."""
        found = [
            one
            for one in self.objects.newest_first()
            if one["active"] is not params.get("archived", False)
            and one["lookup_key"] == params.get("lookup_key", one["lookup_key"])
        ]
        return page(found, _URL, "feature", params)

    def attach(self, product: str, params: dict[str, Any]) -> dict[str, Any]:
        """Give a product a feature."""
        self._products.objects.get(product, "product")
        feature = self.objects.get(params["entitlement_feature"], "entitlement_feature", 400)
        attached = self._attached.setdefault(product, {})
        if feature["id"] in attached.values():
            raise refused("The product already has this feature.", "entitlement_feature")
        id_ = new_id("prodft", 14)
        attached[id_] = feature["id"]
        return self._product_feature(id_, feature["id"])

    def detach(self, product: str, id_: str) -> dict[str, Any]:
        """Take a feature from a product."""
        self._products.objects.get(product, "product")
        if self._attached.get(product, {}).pop(id_, None) is None:
            raise no_such("product feature", id_)
        return {"id": id_, "object": "product_feature", "deleted": True}

    def attached(self, product: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of a product's features."""
        self._products.objects.get(product, "product")
        pairs = reversed(self._attached.get(product, {}).items())
        found = [self._product_feature(id_, feature) for id_, feature in pairs]
        return page(found, f"/v1/products/{product}/features", "product feature", params)

    def entitlements(self, customer: str, products: Iterable[str]) -> list[dict[str, Any]]:
        """Return what a customer may use who pays for ``products``: each feature once."""
        features = dict.fromkeys(
            feature for product in products for feature in self._attached.get(product, {}).values()
        )
        return [
            {
                "id": derived_id("ent", customer, feature),
                "object": "entitlements.active_entitlement",
                "feature": feature,
                "livemode": False,
                "lookup_key": self.objects.get(feature)["lookup_key"],
            }
            for feature in features
        ]

    def listed_entitlements(
        self, products: Iterable[str], params: dict[str, Any]
    ) -> dict[str, Any]:
        """Return one page of the entitlements of the customer in ``params``."""
        found = self.entitlements(params["customer"], products)
        return page(found, _ENTITLEMENTS_URL, "entitlement", params)

    def _product_feature(self, id_: str, feature: str) -> dict[str, Any]:
        return {
            "id": id_,
            "object": "product_feature",
            "entitlement_feature": self.objects.get(feature),
            "livemode": False,
        }


def summary(customer: str, entitlements: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a customer's entitlements as the event of their change has them, without an id."""
    url = "/v1/customer/entitlements"
    return {
        "object": "entitlements.active_entitlement_summary",
        "customer": customer,
        "entitlements": {"object": "list", "data": entitlements, "has_more": False, "url": url},
        "livemode": False,
    }
