"""An invoice and its lines, with every field that Stripe's document requires."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from stripe_emulator.amounts import cost
from stripe_emulator.ids import derived_id
from stripe_emulator.pages import page

_DAY = 86400


def draft(
    id_: str, subscription: Mapping[str, Any], reason: str, created: int, final_at: int
) -> dict[str, Any]:
    """Return an invoice of a subscription that is made at ``created`` and has no lines yet."""
    days = subscription["days_until_due"]
    return {
        "id": id_,
        "object": "invoice",
        "amount_overpaid": 0,
        "amount_paid_off_stripe": 0,
        "amount_shipping": 0,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": final_at,
        "billing_reason": reason,
        "collection_method": subscription["collection_method"],
        "created": created,
        "currency": subscription["currency"],
        "customer": subscription["customer"],
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None if days is None else final_at + days * _DAY,
        "effective_at": None,
        "issuer": {"type": "self"},
        "livemode": False,
        "metadata": {},
        "parent": {
            "quote_details": None,
            "subscription_details": {
                "metadata": subscription["metadata"],
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        },
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "test_clock": subscription["test_clock"],
    }


def line(
    invoice_id: str, item: Mapping[str, Any], price: Mapping[str, Any], period: tuple[int, int]
) -> dict[str, Any]:
    """Return the line of an item's metered price for a period, before its usage is added up."""
    start, end = period
    return {
        "id": derived_id("il", invoice_id, item["id"]),
        "object": "line_item",
        "currency": price["currency"],
        "description": None,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": item["subscription"],
                "subscription_item": item["id"],
            },
            "type": "subscription_item_details",
        },
        "period": {"end": end, "start": start},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "taxes": [],
    }


def with_usage(line: Mapping[str, Any], price: Mapping[str, Any], used: Decimal) -> dict[str, Any]:
    """Return a line with what was used; a sum below zero is billed as zero."""
    quantity = max(Decimal(0), used)
    amount = cost(price, quantity)
    return {
        **line,
        "amount": amount,
        "quantity": int(quantity),
        "quantity_decimal": f"{quantity:f}",
        "subtotal": amount,
    }


def with_lines(invoice: Mapping[str, Any], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return an invoice with these lines, and with the sums that follow from them."""
    total = sum(each["amount"] for each in lines)
    return {
        **invoice,
        "amount_due": total,
        "amount_paid": 0,
        "amount_remaining": total,
        "lines": lines,
        "period_end": max(each["period"]["end"] for each in lines),
        "period_start": min(each["period"]["start"] for each in lines),
        "subtotal": total,
        "total": total,
    }


def finalised(invoice: Mapping[str, Any]) -> dict[str, Any]:
    """Return a draft as it is once it is final; it is paid unless it is sent to the customer."""
    moment, due = invoice["automatically_finalizes_at"], invoice["amount_due"]
    paid = invoice["collection_method"] == "charge_automatically" or due == 0
    transitions = {"finalized_at": moment, "paid_at": moment if paid else None}
    return {
        **invoice,
        "amount_paid": due if paid else 0,
        "amount_remaining": 0 if paid else due,
        "attempted": paid,
        "auto_advance": not paid,
        "automatically_finalizes_at": None,
        "effective_at": moment,
        "status": "paid" if paid else "open",
        "status_transitions": {**invoice["status_transitions"], **transitions},
    }


def subscription_of(invoice: Mapping[str, Any]) -> str:
    """Return the id of the subscription that an invoice is of."""
    return str(invoice["parent"]["subscription_details"]["subscription"])


def view(invoice: Mapping[str, Any]) -> dict[str, Any]:
    """Return an invoice as answers show it: with its first lines alone."""
    return {**invoice, "lines": lines_of(invoice, {})}


def lines_of(invoice: Mapping[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Return one page of an invoice's lines."""
    return page(invoice["lines"], f"/v1/invoices/{invoice['id']}/lines", "line item", params)
