"""What of a plan file is missing at Stripe, or differs there, and what is done about it. Pure."""

from collections.abc import Iterator, Mapping

from customer_provisioner.catalogue import REPLACES, Action, Catalogue, CatalogueChange, Request
from customer_provisioner.price_terms import creation, differences, wanted_terms
from nexus_plans import PLAN_TYPE, SEATS, Plan, Plans, Price
from nexus_stripe import meters as rule


def meters(plans: Plans, found: Catalogue) -> Iterator[CatalogueChange]:
    """Yield what is to be done about each meter. One that counts otherwise is left as it is."""
    for name in plans.meter_names:
        there = found.meters.get(name)
        described = plans.meters.get(name)
        if there is None:
            title = rule.DISPLAY_NAME if described is None else described.display_name
            request = Request("/v1/billing/meters", rule.Meter(name).creation(title))
            yield CatalogueChange("meter", name, Action.CREATE, title, request)
        elif wrong := rule.differences(there.meter):
            yield CatalogueChange("meter", name, Action.DIFFERS, wrong)
        else:
            yield CatalogueChange("meter", name, Action.OK)


def features(plans: Plans, found: Catalogue) -> Iterator[CatalogueChange]:
    """Yield what is to be done about each feature of a plan."""
    for name in dict.fromkeys(each for plan in plans.plans.values() for each in plan.features):
        there = found.features.get(name)
        if there is None:
            params = {"lookup_key": name, "name": name}
            request = Request("/v1/entitlements/features", params)
            yield CatalogueChange("feature", name, Action.CREATE, request=request)
        elif not there.active:
            request = Request(f"/v1/entitlements/features/{there.id}", {"active": True})
            yield CatalogueChange("feature", name, Action.ACTIVATE, request=request)
        else:
            yield CatalogueChange("feature", name, Action.OK)


def products(plans: Plans, found: Catalogue) -> Iterator[CatalogueChange]:
    """Yield what is to be done about each product. Its texts and its tax code are left as they are.

    Somebody may have edited them at Stripe, and the tax code changes what is paid.
    """
    for id_, product in plans.products.items():
        there = found.products.get(id_)
        texts = product.model_dump(exclude_none=True)
        if there is None:
            request = Request("/v1/products", {"id": id_, **texts})
            yield CatalogueChange("product", id_, Action.CREATE, product.name, request)
            continue
        if not there.active:
            request = Request(f"/v1/products/{id_}", {"active": True})
            yield CatalogueChange("product", id_, Action.ACTIVATE, request=request)
        wrong = [
            f"{name} is {there.texts[name]!r}" for name in texts if there.texts[name] != texts[name]
        ]
        if wrong:
            yield CatalogueChange("product", id_, Action.DIFFERS, "; ".join(wrong))
        elif there.active:
            yield CatalogueChange("product", id_, Action.OK)


def product_features(plans: Plans, found: Catalogue) -> Iterator[CatalogueChange]:
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
                yield CatalogueChange("product", id_, Action.ATTACH, f"feature {name}", request)
        if more := sorted(given - set(wanted)):
            detail = f"has features that its plans have not: {', '.join(more)}"
            yield CatalogueChange("product", id_, Action.DIFFERS, detail)


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


def prices(plans: Plans, found: Catalogue) -> Iterator[CatalogueChange]:
    """Yield what is to be done about each price.

    One that asks for something else is never edited: a new one takes over its lookup key. Before,
    it is marked with its plan, which its lookup key has said until now.
    """
    for plan in plans.plans.values():
        for price in plan.prices:
            yield from _price(plan, price, found)


def _price(plan: Plan, price: Price, found: Catalogue) -> Iterator[CatalogueChange]:
    key, there = price.lookup_key, found.prices.get(price.lookup_key)
    marks = {PLAN_TYPE: plan.plan_type, **({SEATS: "true"} if price.seats else {})}
    meter = found.meters.get(price.recurring.meter or "")
    meter_id = None if meter is None else meter.id
    if there is None:
        request = Request("/v1/prices", creation(price, meter_id, marks))
        yield CatalogueChange("price", key, Action.CREATE, plan.plan_type, request)
    elif changed := "; ".join(differences(there.terms, wanted_terms(price))):
        if not marks.items() <= there.metadata.items():
            request = Request(f"/v1/prices/{there.id}", {"metadata": marks})
            yield CatalogueChange("price", key, Action.MARK, f"{there.id} with its plan", request)
        params = creation(price, meter_id, {**marks, REPLACES: there.id})
        detail = f"{changed}; {there.id} stays for those who have it"
        yield CatalogueChange("price", key, Action.REPLACE, detail, Request("/v1/prices", params))
    elif not there.active:
        request = Request(f"/v1/prices/{there.id}", {"active": True})
        yield CatalogueChange("price", key, Action.ACTIVATE, there.id, request)
    else:
        yield CatalogueChange("price", key, Action.OK)


def replaced(_plans: Plans, found: Catalogue) -> Iterator[CatalogueChange]:
    """Yield what is to be done about prices that others have replaced, the oldest first.

    The default price of its product gives that place up, too, and one that nobody ever had is
    archived.
    """
    for key, before in found.replaced.items():
        present = found.prices[key]
        for old in reversed(before):
            if old.is_default and present.terms.product == old.product:
                request = Request(f"/v1/products/{old.product}", {"default_price": present.id})
                detail = f"default price {old.id} -> {present.id}"
                yield CatalogueChange("product", old.product, Action.MOVE, detail, request)
            elif old.is_default and not old.used:
                detail = f"{old.id} is the default price of {old.product}: choose another there"
                yield CatalogueChange("price", key, Action.DIFFERS, detail)
                continue
            if old.active and not old.used:
                request = Request(f"/v1/prices/{old.id}", {"active": False})
                detail = f"{old.id}, which no subscription has had"
                yield CatalogueChange("price", key, Action.ARCHIVE, detail, request)
