"""What a quantity of a price costs. Pure.

https://docs.stripe.com/products-prices/pricing-models
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Any

_WHOLE = Decimal(1)


def cost(price: Mapping[str, Any], quantity: Decimal) -> int:
    """Return what ``quantity`` costs, in the currency's smallest unit, rounded half up."""
    transform = price["transform_quantity"]
    if transform is not None:
        rounding = ROUND_CEILING if transform["round"] == "up" else ROUND_FLOOR
        quantity = (quantity / transform["divide_by"]).quantize(_WHOLE, rounding)
    tiers = price.get("tiers")
    if tiers is None:
        exact = quantity * _amount(price, "unit_amount")
    elif price["tiers_mode"] == "volume":
        tier = next(tier for tier in tiers if tier["up_to"] is None or quantity <= tier["up_to"])
        exact = _amount(tier, "flat_amount") + quantity * _amount(tier, "unit_amount")
    else:
        exact = sum(_graduated(tiers, quantity), Decimal(0))
    return int(exact.quantize(_WHOLE, ROUND_HALF_UP))


def _graduated(tiers: Sequence[Mapping[str, Any]], quantity: Decimal) -> Iterator[Decimal]:
    """Yield what each tier costs that the quantity reaches; the first one is always reached."""
    below = Decimal(0)
    for number, tier in enumerate(tiers):
        if number > 0 and quantity <= below:
            return
        last = quantity if tier["up_to"] is None else min(quantity, Decimal(tier["up_to"]))
        yield _amount(tier, "flat_amount") + (last - below) * _amount(tier, "unit_amount")
        below = last


def _amount(of: Mapping[str, Any], name: str) -> Decimal:
    return Decimal(of[f"{name}_decimal"] or 0)
