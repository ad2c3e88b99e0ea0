"""What a plan file has at Stripe, and what is missing or differs there. Pure.

Stripe finds each thing by a name that the file gives it: a meter by its event name, a feature and a
price by their lookup keys, a product by its id.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from customer_provisioner.price_terms import Terms, creation, differences, wanted_terms
from nexus_plans import PLAN_TYPE, SEATS, Plan, Plans, Price
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
class Change:
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
    """A price whose lookup key another one has taken; ``used``: a subscription has or had it."""

    id: str
    active: bool
    used: bool


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What was found at Stripe: meters by event name, products by id, all else by lookup key."""

    meters: Mapping[str, FoundMeter] = field(default_factory=dict)
    features: Mapping[str, FoundFeature] = field(default_factory=dict)
    products: Mapping[str, FoundProduct] = field(default_factory=dict)
    prices: Mapping[str, FoundPrice] = field(default_factory=dict)
    replaced: Mapping[str, FoundOld] = field(default_factory=dict)


def meters(plans: Plans, found: Catalogue) -> Iterator[Change]:
    """Yield what is to be done about each meter. One that counts otherwise is left as it is."""
    for name in plans.meter_names:
        there = found.meters.get(name)
        described = plans.meters.get(name)
        if there is None:
            title = rule.DISPLAY_NAME if described is None else described.display_name
            request = Request("/v1/billing/meters", rule.Meter(name).creation(title))
            yield Change("meter", name, Action.CREATE, title, request)
        elif wrong := rule.differences(there.meter):
            yield Change("meter", name, Action.DIFFERS, wrong)
        else:
            yield Change("meter", name, Action.OK)


def features(plans: Plans, found: Catalogue) -> Iterator[Change]:
    """Yield what is to be done about each feature of a plan."""
    for name in dict.fromkeys(each for plan in plans.plans.values() for each in plan.features):
        there = found.features.get(name)
        if there is None:
            params = {"lookup_key": name, "name": name}
            request = Request("/v1/entitlements/features", params)
            yield Change("feature", name, Action.CREATE, request=request)
        elif not there.active:
            request = Request(f"/v1/entitlements/features/{there.id}", {"active": True})
            yield Change("feature", name, Action.ACTIVATE, request=request)
        else:
            yield Change("feature", name, Action.OK)


def products(plans: Plans, found: Catalogue) -> Iterator[Change]:
    """Yield what is to be done about each product. Its texts and its tax code are left as they are.

    Somebody may have edited them at Stripe, and the tax code changes what is paid.
    """
    for id_, product in plans.products.items():
        there = found.products.get(id_)
        texts = product.model_dump(exclude_none=True)
        if there is None:
            request = Request("/v1/products", {"id": id_, **texts})
            yield Change("product", id_, Action.CREATE, product.name, request)
            continue
        if not there.active:
            request = Request(f"/v1/products/{id_}", {"active": True})
            yield Change("product", id_, Action.ACTIVATE, request=request)
        wrong = [
            f"{name} is {there.texts[name]!r}" for name in texts if there.texts[name] != texts[name]
        ]
        if wrong:
            yield Change("product", id_, Action.DIFFERS, "; ".join(wrong))
        elif there.active:
            yield Change("product", id_, Action.OK)


def product_features(plans: Plans, found: Catalogue) -> Iterator[Change]:
    """Yield what is to be done about the features of each product.

    A product has the features that all plans with a price of it have: nobody gets more than a plan.
    """
    for id_, wanted in features_by_product(plans).items():
        there = found.products.get(id_)
        given = frozenset[str]() if there is None else there.features
        for name in wanted:
            if name not in given:
                feature = found.features.get(name)
                params = {"entitlement_feature": "" if feature is None else feature.id}
                request = Request(f"/v1/products/{id_}/features", params)
                yield Change("product", id_, Action.ATTACH, f"feature {name}", request)
        if more := sorted(given - set(wanted)):
            detail = f"has features that its plans have not: {', '.join(more)}"
            yield Change("product", id_, Action.DIFFERS, detail)


def features_by_product(plans: Plans) -> Mapping[str, tuple[str, ...]]:
    """Return the features that each product has to have at Stripe."""
    owners: dict[str, list[Plan]] = {id_: [] for id_ in plans.products}
    for plan in plans.plans.values():
        for price in plan.prices:
            owners[price.product].append(plan)
    return {
        id_: tuple(
            name
            for name in (selling[0].features if selling else ())
            if all(name in plan.features for plan in selling)
        )
        for id_, selling in owners.items()
    }


def prices(plans: Plans, found: Catalogue) -> Iterator[Change]:
    """Yield what is to be done about each price.

    One that asks for something else is never edited: a new one takes over its lookup key. Before,
    it is marked with its plan, which its lookup key has said until now.
    """
    for plan in plans.plans.values():
        for price in plan.prices:
            yield from _price(plan, price, found)


def _price(plan: Plan, price: Price, found: Catalogue) -> Iterator[Change]:
    key, there = price.lookup_key, found.prices.get(price.lookup_key)
    marks = {PLAN_TYPE: plan.plan_type, **({SEATS: "true"} if price.seats else {})}
    meter = found.meters.get(price.recurring.meter or "")
    meter_id = None if meter is None else meter.id
    if there is None:
        request = Request("/v1/prices", creation(price, meter_id, marks))
        yield Change("price", key, Action.CREATE, plan.plan_type, request)
    elif told := "; ".join(differences(there.terms, wanted_terms(price))):
        if not marks.items() <= there.metadata.items():
            request = Request(f"/v1/prices/{there.id}", {"metadata": marks})
            yield Change("price", key, Action.MARK, f"{there.id} with its plan", request)
        params = creation(price, meter_id, {**marks, REPLACES: there.id})
        detail = f"{told}; {there.id} stays for those who have it"
        yield Change("price", key, Action.REPLACE, detail, Request("/v1/prices", params))
    elif not there.active:
        request = Request(f"/v1/prices/{there.id}", {"active": True})
        yield Change("price", key, Action.ACTIVATE, there.id, request)
    else:
        yield Change("price", key, Action.OK)


def replaced(_plans: Plans, found: Catalogue) -> Iterator[Change]:
    """Yield the archiving of each price that another has replaced, and that nobody ever had."""
    for key, old in found.replaced.items():
        if old.active and not old.used:
            request = Request(f"/v1/prices/{old.id}", {"active": False})
            detail = f"{old.id}, which no subscription has had"
            yield Change("price", key, Action.ARCHIVE, detail, request)
