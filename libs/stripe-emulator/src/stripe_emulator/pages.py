"""Pages of a list: cursors, limits and the ``list`` object around them."""

from collections.abc import Sequence
from typing import Any

from stripe_emulator.errors import no_such

DEFAULT_LIMIT = 10


def page(
    items: Sequence[dict[str, Any]], url: str, noun: str, params: dict[str, Any]
) -> dict[str, Any]:
    """Return one page of ``items`` as Stripe's ``list`` object.

    Args:
        items: The whole list in its order; each item has an ``id``.
        url: The list's own address.
        noun: The name of an item in an error message.
        params: ``limit`` (1 to 100, default 10), and ``starting_after`` or ``ending_before``.

    Raises:
        StripeError: 400 when a cursor names no item of the list.
    """
    limit = params.get("limit", DEFAULT_LIMIT)
    if "ending_before" in params:
        place = _place(items, noun, params["ending_before"], "ending_before")
        first = max(0, place - limit)
        return _listed(items[first:place], url, has_more=first > 0)
    start = 0
    if "starting_after" in params:
        start = _place(items, noun, params["starting_after"], "starting_after") + 1
    return _listed(items[start : start + limit], url, has_more=len(items) > start + limit)


def _place(items: Sequence[dict[str, Any]], noun: str, id_: str, param: str) -> int:
    for place, item in enumerate(items):
        if item["id"] == id_:
            return place
    raise no_such(noun, id_, param, status=400)


def _listed(items: Sequence[dict[str, Any]], url: str, *, has_more: bool) -> dict[str, Any]:
    return {"object": "list", "data": list(items), "has_more": has_more, "url": url}
