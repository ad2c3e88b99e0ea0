"""Customers: their fields, their deletion, and lists by exact e-mail address."""

import copy
from typing import Any

from stripe_emulator.errors import StripeError, invalid_parameter, no_such, no_such_in_test_mode
from stripe_emulator.event_log import Record, record_nothing
from stripe_emulator.ids import new_id
from stripe_emulator.pages import page
from stripe_emulator.parameters import (
    CREATED,
    PAGING,
    Choice,
    Integer,
    Metadata,
    Parameters,
    Text,
    Texts,
    is_within,
    merged_metadata,
)

_URL = "/v1/customers"
_ADDRESS = {
    name: Text(unsettable=True)
    for name in ("city", "country", "line1", "line2", "postal_code", "state")
}

UPDATE_CUSTOMER = Parameters(
    {
        "address": Parameters(_ADDRESS),
        "balance": Integer(),
        "description": Text(5000, unsettable=True),
        "email": Text(512, unsettable=True),
        "metadata": Metadata(),
        "name": Text(256, unsettable=True),
        "phone": Text(20, unsettable=True),
        "preferred_locales": Texts(),
        "tax_exempt": Choice(("exempt", "none", "reverse")),
    }
)
CREATE_CUSTOMER = Parameters({**UPDATE_CUSTOMER.kinds, "test_clock": Text()})
LIST_CUSTOMERS = Parameters(
    {
        **PAGING,
        "created": CREATED,
        "email": Text(512),
        "test_clock": Text(),
    }
)


class Customers:
    """All customers of the account, with every version each has had.

    A search that lags behind sees an older version; None is a deletion.
    """

    def __init__(self, record: Record = record_nothing) -> None:
        self._record = record
        self._customers: dict[str, dict[str, Any]] = {}
        self._deleted: set[str] = set()
        self._live: set[str] = set()
        self._versions: dict[str, list[tuple[float, dict[str, Any] | None]]] = {}

    def create(self, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Create a customer from parameters read by ``CREATE_CUSTOMER``."""
        customer = self._write(_blank(new_id("cus"), now), params, now)
        self._record("customer.created", customer)
        return customer

    def create_live(self) -> str:
        """Create a customer in live mode, which this account in test mode does not show."""
        id_ = new_id("cus")
        self._live.add(id_)
        return id_

    def update(self, id_: str, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Change the given fields and leave the others; 404 for a deleted customer."""
        if not self.exists(id_):
            raise self._missing(id_)
        before = self._customers[id_]
        customer = self._write(copy.deepcopy(before), params, now)
        self._record("customer.updated", customer, before)
        return customer

    def exists(self, id_: str) -> bool:
        """Return whether there is such a customer and it is not deleted."""
        return id_ in self._customers and id_ not in self._deleted

    def of_clock(self, test_clock: str) -> list[str]:
        """Return the customers of a test clock by id, without the deleted ones."""
        all_ = self._customers.items()
        return [id_ for id_, one in all_ if one["test_clock"] == test_clock and self.exists(id_)]

    def clock_of(self, id_: str) -> str | None:
        """Return the id of a customer's test clock; None for the account's own clock."""
        return self._customers[id_]["test_clock"] if self.exists(id_) else None

    def retrieve(self, id_: str) -> dict[str, Any]:
        """Return the customer, or the tombstone of a deleted one; 404 for an unknown id."""
        if id_ in self._deleted:
            return _tombstone(id_)
        if id_ not in self._customers:
            raise self._missing(id_)
        return self._customers[id_]

    def delete(self, id_: str, now: float) -> dict[str, Any]:
        """Delete a customer for good; 404 the second time."""
        if not self.exists(id_):
            raise no_such("customer", id_)
        self._deleted.add(id_)
        self._versions[id_].append((now, None))
        self._record("customer.deleted", self._customers[id_])
        return _tombstone(id_)

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of customers, the newest first, filtered by exact e-mail address.

        Those of a test clock are shown where it is asked for alone.
        """
        found = [self._customers[id_] for id_ in reversed(self._customers) if self.exists(id_)]
        wanted = params.get("test_clock")
        found = [customer for customer in found if customer["test_clock"] == wanted]
        if "email" in params:
            found = [customer for customer in found if customer["email"] == params["email"]]
        bounds = params.get("created", {})
        found = [customer for customer in found if is_within(customer["created"], bounds)]
        return page(found, _URL, "customer", params)

    def as_of(self, moment: float) -> list[dict[str, Any]]:
        """Return the customers as they were at ``moment`` (unix seconds), the newest first."""
        seen = (
            next((version for at, version in reversed(versions) if at <= moment), None)
            for versions in reversed(self._versions.values())
        )
        return [version for version in seen if version is not None]

    def _missing(self, id_: str) -> StripeError:
        refuse = no_such_in_test_mode if id_ in self._live else no_such
        return refuse("customer", id_)

    def _write(
        self, customer: dict[str, Any], params: dict[str, Any], now: float
    ) -> dict[str, Any]:
        _require_email(params.get("email"))
        changes = dict(params)
        if "metadata" in changes:
            changes["metadata"] = merged_metadata(customer["metadata"], changes["metadata"])
        if "address" in changes:
            changes["address"] = {**dict.fromkeys(_ADDRESS), **changes["address"]}
        customer |= changes
        self._customers[customer["id"]] = customer
        self._versions.setdefault(customer["id"], []).append((now, customer))
        return customer


def _blank(id_: str, now: float) -> dict[str, Any]:
    return {
        "id": id_,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": int(now),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": id_[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def _tombstone(id_: str) -> dict[str, Any]:
    return {"id": id_, "object": "customer", "deleted": True}


def _require_email(email: str | None) -> None:
    if email is None:
        return
    local, at, domain = email.partition("@")
    if not (local and at and domain) or "@" in domain or any(c.isspace() for c in email):
        raise _invalid_email(email)


def _invalid_email(email: str) -> StripeError:
    return invalid_parameter("email", f"Invalid email address: {email}", "email_invalid")
