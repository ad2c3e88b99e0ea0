"""The parameters of prices, as Stripe's API names them."""

from decimal import Decimal, InvalidOperation

from stripe_emulator.errors import StripeError, invalid_parameter
from stripe_emulator.forms import FormValue
from stripe_emulator.parameters import (
    CREATED,
    PAGING,
    Array,
    Boolean,
    Choice,
    Integer,
    Metadata,
    ParameterKind,
    Parameters,
    Text,
    abbreviated,
)

_MAX_PLACES = 12
_INTERVALS = Choice(("day", "month", "week", "year"))
_USAGE = Choice(("licensed", "metered"))
_TAX = Choice(("exclusive", "inclusive", "unspecified"))


class _Amount:
    """A decimal number of the currency's smallest unit, with at most 12 decimal places."""

    def read(self, value: FormValue, param: str) -> str:
        """Return the number without needless zeros."""
        try:
            number = Decimal(value if isinstance(value, str) else "")
        except InvalidOperation:
            raise _invalid_decimal(param, value) from None
        if not number.is_finite() or number < 0 or _places(number) > _MAX_PLACES:
            raise _invalid_decimal(param, value)
        return f"{number.normalize():f}"


class _UpTo:
    """The last unit of a tier, or ``inf`` for the last tier."""

    def read(self, value: FormValue, param: str) -> int | None:
        """Return the last unit, or None for the last tier."""
        return None if value == "inf" else Integer(minimum=1).read(value, param)


_AMOUNTS: dict[str, ParameterKind] = {
    "flat_amount": Integer(minimum=0),
    "flat_amount_decimal": _Amount(),
    "unit_amount": Integer(minimum=0),
    "unit_amount_decimal": _Amount(),
}
CREATE_PRICE = Parameters(
    {
        "active": Boolean(),
        "billing_scheme": Choice(("per_unit", "tiered")),
        "currency": Text(3),
        "lookup_key": Text(200),
        "metadata": Metadata(),
        "nickname": Text(),
        "product": Text(),
        "product_data": Parameters(
            {
                "active": Boolean(),
                "metadata": Metadata(),
                "name": Text(),
                "statement_descriptor": Text(22),
                "tax_code": Text(),
                "unit_label": Text(12),
            },
            ("name",),
        ),
        "recurring": Parameters(
            {
                "interval": _INTERVALS,
                "interval_count": Integer(minimum=1),
                "meter": Text(),
                "usage_type": _USAGE,
            },
            ("interval",),
        ),
        "tax_behavior": _TAX,
        "tiers": Array(Parameters({**_AMOUNTS, "up_to": _UpTo()}, ("up_to",))),
        "tiers_mode": Choice(("graduated", "volume")),
        "transfer_lookup_key": Boolean(),
        "transform_quantity": Parameters(
            {"divide_by": Integer(minimum=1), "round": Choice(("down", "up"))},
            ("divide_by", "round"),
        ),
        "unit_amount": Integer(minimum=0),
        "unit_amount_decimal": _Amount(),
    },
    ("currency",),
)
UPDATE_PRICE = Parameters(
    {
        "active": Boolean(),
        "lookup_key": Text(200, unsettable=True),
        "metadata": Metadata(),
        "nickname": Text(unsettable=True),
        "tax_behavior": _TAX,
        "transfer_lookup_key": Boolean(),
    }
)
LIST_PRICES = Parameters(
    {
        **PAGING,
        "active": Boolean(),
        "created": CREATED,
        "currency": Text(3),
        "lookup_keys": Array(Text(200), 10),
        "product": Text(),
        "recurring": Parameters({"interval": _INTERVALS, "meter": Text(), "usage_type": _USAGE}),
        "type": Choice(("one_time", "recurring")),
    }
)


def _places(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _invalid_decimal(param: str, value: FormValue) -> StripeError:
    message = f"Invalid decimal: {abbreviated(value)}; must have at most {_MAX_PLACES} places"
    return invalid_parameter(param, message, "parameter_invalid_decimal")
