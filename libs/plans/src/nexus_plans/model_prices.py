"""What a run's tokens cost, by a dated table of models. Pure.

Amounts are whole micro-USD. A price is micro-USD per million tokens: $3.00 per million is 3000000.
"""

from datetime import UTC, date, datetime, time
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, field_validator
from typing_extensions import override

from nexus_contracts.fields import Text
from nexus_plans.part import Part
from nexus_plans.patterns import TextPattern

MILLION: Final = 1_000_000

Rate = Annotated[int, Field(ge=0, le=10**12)]
"""Micro-USD per million tokens."""

MAX_MICRO_USD: Final = 4_000_000_000
"""Of one run, $4,000: more is a mistake of the publisher or the table. A full claim of such runs
with the highest markup still has at most 15 digits: a claim that fails holds up all others."""

CachedTokens = Literal["part", "addition"]


class ModelPrice(Part):
    """What a model costs from a date on, in micro-USD per million tokens of each kind."""

    valid_from: Annotated[date, Field(alias="from")]
    """The first day, in UTC, that it holds for. It holds until the day of the next price."""
    input: Rate
    """Tokens that the model reads anew."""
    output: Rate
    """Tokens that the model writes."""
    cached: Rate
    """Tokens that come from the provider's cache; as `input` if the provider has no such price."""
    source: Text
    """Where the price was read: an address, or a package with its version."""

    @override
    def __hash__(self) -> int:
        """Return a hash of one part: it is asked for with every run, beside the model's name."""
        return hash(self.input)

    @property
    def begins(self) -> datetime:
        """The first moment that it holds for."""
        return datetime.combine(self.valid_from, time(tzinfo=UTC))


class Model(Part):
    """A model of a provider: how its tokens are counted, and what they cost."""

    names: tuple[TextPattern, ...] = ()
    """Further names that runs may have it under, such as those with a date."""
    cached_tokens: CachedTokens
    """Whether its provider counts cached tokens as a `part` of the input (OpenAI, Gemini) or as an
    `addition` to it (Anthropic)."""
    prices: Annotated[tuple[ModelPrice, ...], Field(min_length=1)]
    """Its prices, the earliest first. Append to them: a price that was used never changes."""

    @field_validator("prices")
    @classmethod
    def _ascending(cls, prices: tuple[ModelPrice, ...]) -> tuple[ModelPrice, ...]:
        if any(later.valid_from <= earlier.valid_from for earlier, later in pairwise(prices)):
            raise ValueError("must be in the order of their dates, each on a later day")
        return prices

    def price_at(self, moment: datetime) -> ModelPrice | None:
        """Return the price that holds at ``moment``, or ``None`` if it is before all of them."""
        for begins, price in self._newest_first:
            if begins <= moment:
                return price
        return None

    @cached_property
    def _newest_first(self) -> tuple[tuple[datetime, ModelPrice], ...]:
        return tuple((price.begins, price) for price in reversed(self.prices))


class Tokens(NamedTuple):
    """The tokens of a run by kind, as the publisher states them; ``None``: unknown."""

    input: int | None
    output: int | None
    cached: int | None


class Priced(NamedTuple):
    """What a run's tokens cost, and by which price: ``model`` is its name in the file."""

    micro_usd: int
    model: str
    cached_tokens: CachedTokens
    price: ModelPrice


class NoPrice(NamedTuple):
    """Why the run has no price. Only of ``no_price`` the table may have one later."""

    reason: Literal["no_model", "no_tokens", "no_price", "too_much"]


def cost(tokens: Tokens, price: ModelPrice, cached_tokens: CachedTokens) -> int:
    """Return what ``tokens`` cost in micro-USD, rounded half up once, after adding up.

    Kinds that are unknown count as none. Where cached tokens are a part of the input, no more of
    them are charged than the input has.
    """
    known, written, cached = tokens
    read, written, cached = known or 0, written or 0, cached or 0
    if cached_tokens == "part":
        if known is not None:
            cached = min(cached, read)
        read = max(read - cached, 0)
    total = read * price.input + written * price.output + cached * price.cached
    return (2 * total + MILLION) // (2 * MILLION)
