"""What is read out of Stripe's successes, strictly: a body that differs is not Stripe's."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import stripe
from pydantic import BaseModel, ConfigDict, StringConstraints

PAGE: Final = 100
"""Objects of a page, the most that Stripe gives (https://docs.stripe.com/api/pagination)."""

MOST_PAGES: Final = 100
"""Pages of one list. A list that never ends is not Stripe's."""

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,255}$")]


class Body(BaseModel):
    """A JSON object of which only the named fields matter."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Item(Body):
    """An object that lists hold."""

    id: Id


BodyT = TypeVar("BodyT", bound=Body)
ItemT = TypeVar("ItemT", bound=Item)


class Page(Body, Generic[ItemT]):
    """A page: of a list, read on by its last item, or of a search, read on by its own cursor."""

    object: Literal["list", "search_result"]
    data: list[ItemT]
    has_more: bool
    next_page: str | None = None

    @property
    def cursor(self) -> dict[str, Any]:
        """Return the parameters that ask for the next page."""
        if self.object == "search_result":
            return {"page": self.next_page}
        return {"starting_after": self.data[-1].id}


def read(kind: type[BodyT], result: stripe.StripeObject) -> BodyT:
    """Read what Stripe answered.

    Raises:
        ValueError: it is something else.
    """
    return kind.model_validate(getattr(result.last_response, "data", None))


async def every_item(
    page_of: type[Page[ItemT]], ask_for: Callable[[Any], Awaitable[stripe.StripeObject]]
) -> list[ItemT]:
    """Read a list or search to its end.

    Args:
        page_of: What a page holds.
        ask_for: Asks Stripe for the page that the parameters describe.

    Raises:
        ValueError: a page is no page, or there is no end.
        IndexError: an empty page says that there are more.
    """
    items: list[ItemT] = []
    cursor: dict[str, Any] = {}
    for _ in range(MOST_PAGES):
        page = read(page_of, await ask_for({"limit": PAGE, **cursor}))
        items += page.data
        if not page.has_more:
            return items
        cursor = page.cursor
    raise ValueError("a list without an end")
