"""What subscriptions and their items are created, changed and listed by."""

from stripe_emulator.forms import FormValue
from stripe_emulator.parameters import (
    CREATED,
    PAGING,
    Array,
    Boolean,
    Choice,
    Integer,
    Metadata,
    OrEmpty,
    ParameterKind,
    Parameters,
    Text,
)

MAX_ITEMS = 20
PAYMENT_STATUSES = ("active", "incomplete", "incomplete_expired", "past_due", "paused", "unpaid")
"""The statuses that payments bring at Stripe; the others come by a call or with time."""


class _OrWord:
    """A time in unix seconds, or one of a few words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def read(self, value: FormValue, param: str) -> int | str:
        """Return the time, or the word."""
        if isinstance(value, str) and value in self._words:
            return value
        return Integer(minimum=0).read(value, param)


_NO_EFFECT: dict[str, ParameterKind] = {
    "off_session": Boolean(),
    "payment_behavior": Choice(
        ("allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete")
    ),
    "proration_behavior": Choice(("always_invoice", "create_prorations", "none")),
}
"""About payments and invoices, which the emulator has not: every payment succeeds."""

_CANCEL_AT = _OrWord("max_period_end", "min_period_end")
_ITEM: dict[str, ParameterKind] = {
    "metadata": Metadata(),
    "price": Text(),
    "quantity": Integer(minimum=0),
}
CREATE_SUBSCRIPTION = Parameters(
    {
        **_NO_EFFECT,
        "billing_cycle_anchor": Integer(minimum=0),
        "cancel_at": _CANCEL_AT,
        "cancel_at_period_end": Boolean(),
        "collection_method": Choice(("charge_automatically", "send_invoice")),
        "currency": Text(3),
        "customer": Text(),
        "days_until_due": Integer(minimum=0),
        "description": Text(500),
        "items": Array(Parameters(_ITEM, ("price",)), MAX_ITEMS),
        "metadata": Metadata(),
        "trial_end": _OrWord("now"),
        "trial_period_days": Integer(minimum=1, maximum=730),
    },
    ("customer", "items"),
)
UPDATE_SUBSCRIPTION = Parameters(
    {
        **_NO_EFFECT,
        "billing_cycle_anchor": Choice(("now", "unchanged")),
        "cancel_at": OrEmpty(_CANCEL_AT),
        "cancel_at_period_end": Boolean(),
        "collection_method": Choice(("charge_automatically", "send_invoice")),
        "days_until_due": Integer(minimum=0),
        "description": Text(500, unsettable=True),
        "items": Array(Parameters({**_ITEM, "deleted": Boolean(), "id": Text()}), 2 * MAX_ITEMS),
        "metadata": Metadata(),
        "trial_end": _OrWord("now"),
    }
)
CANCEL_SUBSCRIPTION = Parameters({"invoice_now": Boolean(), "prorate": Boolean()})
LIST_SUBSCRIPTIONS = Parameters(
    {
        **PAGING,
        "collection_method": Choice(("charge_automatically", "send_invoice")),
        "created": CREATED,
        "customer": Text(),
        "price": Text(),
        "test_clock": Text(),
        "status": Choice((*PAYMENT_STATUSES, "canceled", "trialing", "all", "ended")),
    }
)
CREATE_ITEM = Parameters({**_NO_EFFECT, **_ITEM, "subscription": Text()}, ("price", "subscription"))
UPDATE_ITEM = Parameters({**_NO_EFFECT, **_ITEM})
DELETE_ITEM = Parameters({"clear_usage": Boolean(), **_NO_EFFECT})
LIST_ITEMS = Parameters({**PAGING, "subscription": Text()}, ("subscription",))
