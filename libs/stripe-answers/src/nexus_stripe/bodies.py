"""Reads Stripe's successes, strictly: a body of another form was not made by Stripe."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import stripe
from pydantic import BaseModel, ConfigDict, StringConstraints

PAGE: Final = 100
"""Objects per page, the most that Stripe allows (https://docs.stripe.com/api/pagination)."""

MAX_PAGES: Final = 100
"""Pages of one list. A list without an end was not made by Stripe."""

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,255}$")]


class Body(BaseModel):
    """A JSON object, of which only the declared fields are read."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Item(Body):
    """An object in a list."""

    id: Id


BodyT = TypeVar("BodyT", bound=Body)
ItemT = TypeVar("ItemT", bound=Item)


class Page(Body, Generic[ItemT]):
    """A page of a list, continued after its last item, or of a search, continued by a cursor."""

    object: Literal["list", "search_result"]
    data: list[ItemT]
    has_more: bool
    next_page: str | None = None

    @property
    def cursor(self) -> dict[str, Any]:
        """Return the parameters that request the next page."""
        if self.object == "search_result":
            return {"page": self.next_page}
        return {"starting_after": self.data[-1].id}


def read(kind: type[BodyT], result: stripe.StripeObject | stripe.StripeResponse) -> BodyT:
    """Read the body of a success as ``kind``: of an object's response, or of a raw response.

    Raises:
        ValueError: it has another form.
    """
    response = result if isinstance(result, stripe.StripeResponse) else result.last_response
    return kind.model_validate(getattr(response, "data", None))


async def every_item(
    page_of: type[Page[ItemT]],
    request: Callable[[Any], Awaitable[stripe.StripeObject]],
    *,
    most_pages: int = MAX_PAGES,
) -> list[ItemT]:
    """Read a list or search to its end.

    Args:
        page_of: The form of a page.
        request: Requests the page that the parameters describe.
        most_pages: More are refused.

    Raises:
        ValueError: a page has another form, or there are more than ``most_pages``.
        IndexError: an empty page says that more follow.
    """
    items: list[ItemT] = []
    cursor: dict[str, Any] = {}
    for _ in range(most_pages):
        page = read(page_of, await request({"limit": PAGE, **cursor}))
        items += page.data
        if not page.has_more:
            return items
        cursor = page.cursor
    raise ValueError("a list without an end")
