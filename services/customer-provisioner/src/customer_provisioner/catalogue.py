"""What was found at Stripe of a plan file, and the changes that can be made there: values only.

Stripe finds each thing by a name that the file gives it: a meter by its event name, a feature and a
price by their lookup keys, a product by its id.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from customer_provisioner.price_terms import Terms
from nexus_stripe import meters as rule

REPLACES: Final = "replaces"
"""The key of the metadata that a price names the one by whose lookup key it has taken."""


class Action(StrEnum):
    """What is to be done about a thing; nothing for ``OK`` and ``DIFFERS``."""

    OK = "ok"
    CREATE = "create"
    ACTIVATE = "activate"
    ATTACH = "attach"
    MARK = "mark"
    REPLACE = "replace"
    MOVE = "move"
    ARCHIVE = "archive"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Request:
    """A POST: its path, and its parameters as the SDK takes them."""

    path: str
    params: Mapping[str, Any]

    def idempotency_key(self, number: int) -> str:
        """Return the key of this request: two runs at once send the same one.

        ``number`` rises when a key has not had its effect, because Stripe repeats its answer.
        """
        text = json.dumps([self.path, self.params], sort_keys=True)
        return f"plans-ensure:{hashlib.sha256(text.encode()).hexdigest()}:{number}"


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """A thing of the file, and what is to be done about it at Stripe."""

    kind: str
    name: str
    action: Action
    detail: str = ""
    request: Request | None = None

    @property
    def due(self) -> bool:
        """Whether there is something to do."""
        return self.action not in (Action.OK, Action.DIFFERS)


@dataclass(frozen=True, slots=True)
class FoundMeter:
    """An active meter at Stripe."""

    id: str
    meter: rule.Meter


@dataclass(frozen=True, slots=True)
class FoundFeature:
    """A feature at Stripe."""

    id: str
    active: bool


@dataclass(frozen=True, slots=True)
class FoundProduct:
    """A product at Stripe, with the lookup keys of its features."""

    active: bool
    texts: Mapping[str, str | None]
    features: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FoundPrice:
    """A price at Stripe."""

    id: str
    active: bool
    terms: Terms
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundOld:
    """A price whose lookup key another one has taken.

    Attributes:
        id: The price.
        active: Whether it can be sold.
        used: Whether a subscription has or had it.
        product: Its product.
        is_default: Whether it is the one that its product is sold by, which can't be archived.
    """

    id: str
    active: bool
    used: bool
    product: str
    is_default: bool


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What was found at Stripe: meters by event name, products by id, all else by lookup key.

    ``replaced`` has the prices before the one that has the key, the newest first, as far as they
    are not known to be done with.
    """

    meters: Mapping[str, FoundMeter] = field(default_factory=dict)
    features: Mapping[str, FoundFeature] = field(default_factory=dict)
    products: Mapping[str, FoundProduct] = field(default_factory=dict)
    prices: Mapping[str, FoundPrice] = field(default_factory=dict)
    replaced: Mapping[str, Sequence[FoundOld]] = field(default_factory=dict)
