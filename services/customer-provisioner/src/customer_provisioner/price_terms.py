"""What a price asks for: of the plan file, and of Stripe, in one form that compares. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, NamedTuple

from nexus_plans import Price


class TierTerms(NamedTuple):
    """A tier; amounts in the currency's smallest unit, ``up_to`` None for the last."""

    up_to: int | None
    unit_amount: Decimal
    flat_amount: Decimal


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides how much is paid. Stripe never changes any of it, but for ``tax_behavior``.

    ``meter`` is an event name, or the id of a meter that is not active. ``tax_behavior`` of the
    plan file is None where Stripe's own setting decides.
    """

    product: str
    currency: str
    interval: str
    interval_count: int
    usage_type: str
    meter: str | None
    unit_amount: Decimal | None
    tiers_mode: str | None
    tiers: tuple[TierTerms, ...]
    transform_quantity: tuple[int, str] | None
    tax_behavior: str | None


def wanted_terms(price: Price) -> Terms:
    """Return what a price of the plan file asks for."""
    quantity = price.transform_quantity
    return Terms(
        product=price.product,
        currency=price.currency,
        interval=price.recurring.interval,
        interval_count=price.recurring.interval_count,
        usage_type=price.recurring.usage_type,
        meter=price.recurring.meter,
        unit_amount=None if price.tiers else _amount(price.unit_amount, price.unit_amount_decimal),
        tiers_mode=price.tiers_mode,
        tiers=tuple(
            TierTerms(
                None if tier.up_to == "inf" else tier.up_to,
                _amount(tier.unit_amount, tier.unit_amount_decimal),
                _amount(tier.flat_amount, None),
            )
            for tier in price.tiers
        ),
        transform_quantity=None if quantity is None else (quantity.divide_by, quantity.round),
        tax_behavior=price.tax_behavior,
    )


def differences(found: Terms, wanted: Terms) -> Iterator[str]:
    """Yield each term in which ``found`` is not as ``wanted``, with both."""
    for name in (each.name for each in fields(Terms)):
        before, after = getattr(found, name), getattr(wanted, name)
        if before != after and not (name == "tax_behavior" and after is None):
            yield f"{name} {_shown(before)} -> {_shown(after)}"


def creation(price: Price, meter_id: str | None, metadata: dict[str, str]) -> dict[str, Any]:
    """Return the parameters that create a price (https://docs.stripe.com/api/prices/create).

    It takes its lookup key from the price that has it, if any.
    """
    named = {"seats", "recurring"}
    asked = price.model_dump(mode="json", exclude=named, exclude_none=True)
    if not price.tiers:
        del asked["tiers"]
    recurring = price.recurring.model_dump(exclude={"meter"})
    return {
        **asked,
        "billing_scheme": price.billing_scheme,
        "recurring": recurring if meter_id is None else {**recurring, "meter": meter_id},
        "metadata": metadata,
        "transfer_lookup_key": True,
    }


def _amount(whole: int | None, written: str | None) -> Decimal:
    return Decimal(whole or 0) if written is None else Decimal(written)


def _shown(value: object) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], TierTerms):
        return ", ".join(
            f"to {tier.up_to or 'inf'}: {tier.unit_amount:f} + {tier.flat_amount:f}"
            for tier in value
        )
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
