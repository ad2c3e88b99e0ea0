"""Products: what prices are for. Their ids may be chosen by the client."""

from typing import Any

from stripe_emulator.errors import refused
from stripe_emulator.event_log import Record
from stripe_emulator.ids import new_id
from stripe_emulator.objects import Objects
from stripe_emulator.pages import page
from stripe_emulator.parameters import (
    CREATED,
    PAGING,
    Array,
    Boolean,
    Metadata,
    OrEmpty,
    ParameterKind,
    Parameters,
    Text,
    Texts,
    is_within,
    merged_metadata,
)

_URL = "/v1/products"
_COMMON: dict[str, ParameterKind] = {
    "active": Boolean(),
    "description": Text(40_000, unsettable=True),
    "marketing_features": OrEmpty(Array(Parameters({"name": Text(80)}, ("name",)), 15)),
    "metadata": Metadata(),
    "name": Text(5000),
    "shippable": Boolean(),
    "statement_descriptor": Text(22),
    "tax_code": Text(unsettable=True),
    "unit_label": Text(12, unsettable=True),
    "url": Text(unsettable=True),
}
CREATE_PRODUCT = Parameters({**_COMMON, "id": Text(5000)}, ("name",))
UPDATE_PRODUCT = Parameters({**_COMMON, "default_price": Text(unsettable=True)})
LIST_PRODUCTS = Parameters(
    {**PAGING, "active": Boolean(), "created": CREATED, "ids": Texts(), "shippable": Boolean()}
)
PRODUCT_FIELDS = ("active", "description", "name", "shippable", "url")
"""What the search of products can compare, beside their metadata."""


class Products:
    """All products of the account."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.objects = Objects("product")

    def create(self, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Create a product from parameters read by ``CREATE_PRODUCT``."""
        id_ = params.get("id") or new_id("prod")
        if id_ in self.objects:
            raise refused("Product already exists.", "id", "resource_already_exists")
        product = self.objects.put(_changed(_blank(id_, now), params, now), now)
        self._record("product.created", product)
        return product

    def update(self, id_: str, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Change the given fields; ``default_price`` has to be checked before."""
        before = self.objects.get(id_)
        product = self.objects.put(_changed(before, params, now), now)
        self._record("product.updated", product, before)
        return product

    def delete(self, id_: str, now: float) -> dict[str, Any]:
        """Delete a product, which must have no prices."""
        self._record("product.deleted", self.objects.remove(id_, now))
        return {"id": id_, "object": "product", "deleted": True}

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of products, the newest first."""
        found = [
            one
            for one in self.objects.newest_first()
            if is_within(one["created"], params.get("created", {}))
            and one["id"] in params.get("ids", [one["id"]])
            and all(one[name] == params[name] for name in ("active", "shippable") if name in params)
        ]
        return page(found, _URL, "product", params)


def _blank(id_: str, now: float) -> dict[str, Any]:
    return {
        "id": id_,
        "object": "product",
        "active": True,
        "created": int(now),
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "name": "",
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "unit_label": None,
        "updated": int(now),
        "url": None,
    }


def _changed(before: dict[str, Any], params: dict[str, Any], now: float) -> dict[str, Any]:
    changes = {**params, "updated": int(now)}
    if "metadata" in changes:
        changes["metadata"] = merged_metadata(before["metadata"], changes["metadata"])
    if "marketing_features" in changes:
        changes["marketing_features"] = changes["marketing_features"] or []
    return {**before, **changes}
