"""Prices of models as they are kept beside the runs that were priced by them. Pure."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from nexus_plans import NoPrice, Priced
from nexus_plans.model_prices import CachedTokens, ModelPrice
from usage_ingest.columns import Column

_NAMESPACE: Final = UUID("6d1b54c8-0f52-5d0b-9a53-0a1c7e3f9b42")
"""Of prices' ids: a constant of this project."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A price with an id of its content: who edits a price in the file makes another one."""

    price_id: UUID
    model: str
    cached_tokens: CachedTokens
    price: ModelPrice


PRICES: Final = (
    Column("price_id", "uuid", "price_id"),
    Column("model", "text", "model"),
    Column("valid_from", "timestamptz", "price.begins"),
    Column("input", "bigint", "price.input"),
    Column("output", "bigint", "price.output"),
    Column("cached", "bigint", "price.cached"),
    Column("cached_tokens", "text", "cached_tokens"),
    Column("source", "text", "price.source"),
)
"""What is stored of a price, once; rates are micro-USD per million tokens."""


def price_row(priced: Priced) -> PriceRow:
    """Return the row of the price that a run was priced by."""
    return _row(priced.model, priced.cached_tokens, priced.price)


def price_id(priced: Priced | NoPrice) -> UUID | None:
    """Return the id of a run's price, if it has one."""
    return price_row(priced).price_id if isinstance(priced, Priced) else None


@lru_cache(maxsize=1024)
def _row(model: str, cached_tokens: CachedTokens, price: ModelPrice) -> PriceRow:
    content = f"{cached_tokens}|{price.model_dump_json()}|{model}"
    return PriceRow(uuid5(_NAMESPACE, content), model, cached_tokens, price)
