"""Products and prices that an operator's command makes at Stripe, in Stripe's own words. Pure.

https://docs.stripe.com/api/prices/create and https://docs.stripe.com/api/products/create
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from nexus_contracts.fields import MeterName, Text
from nexus_contracts.wording import worded_pattern
from nexus_plans.part import Part

_DECIMAL: Final = worded_pattern(
    r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?$",
    'must be a decimal in quotes with at most 12 digits after its point, as "0.0001"',
)
_CURRENCY: Final = worded_pattern(r"^[a-z]{3}$", "must be a currency in lower case, as usd")
_PRODUCT: Final = worded_pattern(
    r"^[A-Za-z0-9_-]{1,60}$", "must have letters, digits, _ and - alone, at most 60"
)

Amount = Annotated[int, Field(ge=0, le=99_999_999)]
"""In the currency's smallest unit, such as cents. Stripe takes at most eight digits."""

DecimalAmount = Annotated[str, Field(pattern=_DECIMAL)]
"""Likewise, with a fraction: `"0.0001"` cents is one micro-USD."""

ProductId = Annotated[str, Field(pattern=_PRODUCT)]
LookupKey = Annotated[Text, Field(max_length=200)]


class Product(Part):
    """A product, whose id at Stripe is its key in the file."""

    name: Text
    description: Text | None = None
    unit_label: Annotated[Text, Field(max_length=12)] | None = None
    """What one of it is called on invoices, such as `seat`."""
    tax_code: Text | None = None


class Recurring(Part):
    """How often a price is charged, and whether by quantity or by usage."""

    interval: Literal["day", "week", "month", "year"]
    interval_count: Annotated[int, Field(ge=1, le=36)] = 1
    usage_type: Literal["licensed", "metered"] = "licensed"
    meter: MeterName | None = None
    """The event name of the meter whose usage a metered price charges."""

    @model_validator(mode="after")
    def _meter_if_metered(self) -> Self:
        if (self.usage_type == "metered") != (self.meter is not None):
            raise ValueError("must have a meter if usage_type is metered, and none else")
        return self


class PriceTier(Part):
    """A tier of a price: what each unit costs up to a quantity, and what the tier costs at all."""

    up_to: Annotated[int, Field(ge=1)] | Literal["inf"]
    unit_amount: Amount | None = None
    unit_amount_decimal: DecimalAmount | None = None
    flat_amount: Amount | None = None

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if self.unit_amount is not None and self.unit_amount_decimal is not None:
            raise ValueError("must have one of unit_amount and unit_amount_decimal")
        if {self.unit_amount, self.unit_amount_decimal, self.flat_amount} == {None}:
            raise ValueError("must have unit_amount, unit_amount_decimal or flat_amount")
        return self


class TransformQuantity(Part):
    """Divides a quantity before it is charged: a price by the thousand."""

    divide_by: Annotated[int, Field(ge=2)]
    round: Literal["up", "down"]


class Price(Part):
    """A price, which Stripe and the plan are found by through its ``lookup_key``.

    A price at Stripe is never changed: of another amount, a new one takes over the lookup key.
    """

    lookup_key: LookupKey
    product: ProductId
    """One of `products`."""
    currency: Annotated[str, Field(pattern=_CURRENCY)]
    recurring: Recurring
    nickname: Text | None = None
    seats: bool = False
    """The quantity of this price is the number of seats."""
    unit_amount: Amount | None = None
    unit_amount_decimal: DecimalAmount | None = None
    tiers_mode: Literal["graduated", "volume"] | None = None
    """`graduated`: each unit costs what its tier says. `volume`: all cost what the last says."""
    tiers: tuple[PriceTier, ...] = ()
    transform_quantity: TransformQuantity | None = None
    tax_behavior: Literal["exclusive", "inclusive", "unspecified"] | None = None

    @property
    def billing_scheme(self) -> Literal["per_unit", "tiered"]:
        """Stripe's word for whether it has tiers."""
        return "tiered" if self.tiers else "per_unit"

    @model_validator(mode="after")
    def _one_way_to_charge(self) -> Self:
        ways = (self.unit_amount is not None, self.unit_amount_decimal is not None, self.tiers)
        if sum(map(bool, ways)) != 1:
            raise ValueError("must have one of unit_amount, unit_amount_decimal and tiers")
        if bool(self.tiers) != (self.tiers_mode is not None):
            raise ValueError("must have tiers_mode with tiers, and none without")
        if self.tiers and self.transform_quantity is not None:
            raise ValueError("must have no transform_quantity with tiers")
        if self.seats and self.recurring.usage_type != "licensed":
            raise ValueError("must be licensed if its quantity is the number of seats")
        return self

    @model_validator(mode="after")
    def _ascending_tiers(self) -> Self:
        ends = [tier.up_to for tier in self.tiers]
        if ends:
            numbers = [end for end in ends[:-1] if isinstance(end, int)]
            if ends[-1] != "inf" or len(numbers) != len(ends) - 1:
                raise ValueError("must have inf as up_to of the last tier alone")
            if numbers != sorted(set(numbers)):
                raise ValueError("must have tiers in ascending order of up_to")
        return self
