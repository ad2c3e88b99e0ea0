"""The use case: Stripe gets what a plan file has and Stripe lacks."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple

from customer_provisioner import catalogue_changes
from customer_provisioner.catalogue import Catalogue, CatalogueChange
from customer_provisioner.stripe.catalogue import CatalogueApi
from customer_provisioner.stripe.responses import KeySpentError
from nexus_messaging.errors import PermanentError
from nexus_plans import Plans

KEYS: Final = 5
"""Idempotency keys that are tried for a request without the wanted effect."""


class NotMadeError(Exception):
    """Stripe accepted a change and does not show it."""


class _Part(NamedTuple):
    look: Callable[[CatalogueApi, Plans, Catalogue], Awaitable[Catalogue]]
    changes: Callable[[Plans, Catalogue], Iterator[CatalogueChange]]


PARTS: Final = (
    _Part(CatalogueApi.with_meters, catalogue_changes.meters),
    _Part(CatalogueApi.with_features, catalogue_changes.features),
    _Part(CatalogueApi.with_products, catalogue_changes.products),
    _Part(CatalogueApi.with_products, catalogue_changes.product_features),
    _Part(CatalogueApi.with_prices, catalogue_changes.prices),
    _Part(CatalogueApi.with_replaced, catalogue_changes.replaced),
)
"""In the order in which each needs the ids of those before it."""


async def ensure(plans: Plans, stripe: CatalogueApi, *, execute: bool) -> list[CatalogueChange]:
    """Return what the file has, with what was to be done about it at Stripe; do it on ``execute``.

    It may stop anywhere and run twice at once: what Stripe shows after a request counts, never its
    answer, so another run finishes the work, and makes nothing twice.

    Raises:
        NotMadeError: a change has no effect.
        PermanentError: Stripe refuses a change.
        TransientError, CircuitOpenError: Stripe can't be asked now; run it again.
    """
    found = Catalogue()
    changes: list[CatalogueChange] = []
    for part in PARTS:
        found = await part.look(stripe, plans, found)
        first = list(part.changes(plans, found))
        changes += first
        if execute and any(change.due for change in first):
            found = await _make(part, plans, stripe, found)
    return changes


async def _make(part: _Part, plans: Plans, stripe: CatalogueApi, found: Catalogue) -> Catalogue:
    """Make a part's changes and return what Stripe shows then."""
    fault: Exception = NotMadeError("Stripe accepted a change and does not show it: run it again")
    for number in range(KEYS):
        for change in (each for each in part.changes(plans, found) if each.due):
            try:
                await stripe.make(change, number)
            except (KeySpentError, PermanentError) as error:
                # Another run may have made it, and a refusal may be an old one that Stripe repeats.
                # What follows may depend on it.
                fault = error
                break
        found = await part.look(stripe, plans, found)
        if not any(change.due for change in part.changes(plans, found)):
            return found
    raise fault
