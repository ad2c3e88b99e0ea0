"""What the file decides about users, subscriptions and runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_plans import Charge, Pattern, Plans

from .conftest import Edited


@pytest.mark.parametrize(
    ("plan_type", "known", "expected"),
    [
        ("pro", True, "pro"),
        (None, True, "free"),
        ("gone", True, "free"),
        (None, False, None),
        ("gone", False, None),
    ],
)
def test_plan_is_the_subscriptions_or_what_the_file_says_instead(
    plans: Plans, plan_type: str | None, *, known: bool, expected: str | None
) -> None:
    """A plan that the file lost is no subscription; an unknown user may run nothing here."""
    found = plans.plan(plan_type, known=known)

    assert (found.plan_type if found else None) == expected


def test_no_plan_denies_everything(plans: Plans) -> None:
    """Without an entitlement nothing is allowed."""
    assert plans.denied(None) == (Pattern("*", "*"),)


def test_a_plan_without_a_premium_route_is_denied_its_servers(plans: Plans) -> None:
    """A gate closes what its patterns match, for plans that do not name it."""
    assert plans.denied(plans.plans["free"]) == (Pattern("browser", "*"), Pattern("sql-*", "*"))
    assert plans.denied(plans.plans["pro"]) == ()


def test_the_later_of_several_plans_counts(plans: Plans) -> None:
    """Plans ascend."""
    assert plans.best(["pro", "free", None, "gone"]) == "pro"
    assert plans.best([None, "gone"]) is None


METERED = """prices:
      - lookup_key: pro_runs
        product: pro
        currency: usd
        recurring: {interval: month, usage_type: metered, meter: cost_micros}
        unit_amount: 1
"""


@pytest.mark.parametrize(
    ("old", "new", "plan_type", "charged"),
    [
        pytest.param(
            "version: 1", "version: 1", None, set(), id="no subscription and a plan without prices"
        ),
        pytest.param(
            "    display_name: Free\n",
            f"    display_name: Free\n    {METERED}",
            None,
            {"cost_micros"},
            id="a plan that wants a subscription",
        ),
        pytest.param(
            "without_subscription: free",
            "without_subscription: deny",
            None,
            {"cost_micros", "premium_calls"},
            id="nobody should have run it",
        ),
        pytest.param(
            "version: 1",
            "version: 1",
            "pro",
            {"cost_micros", "premium_calls"},
            id="prices by hand as well",
        ),
        pytest.param("    lookup_keys: [legacy_pro]\n", "", "pro", set(), id="seats alone"),
        pytest.param(
            "    lookup_keys: [legacy_pro]\n    prices:\n",
            f"    {METERED}",
            "pro",
            {"cost_micros"},
            id="a metered price",
        ),
        pytest.param(
            "version: 1",
            "version: 1",
            "free",
            {"cost_micros", "premium_calls"},
            id="prices by metadata",
        ),
        pytest.param(
            "version: 1",
            "version: 1",
            "gone",
            {"cost_micros", "premium_calls"},
            id="not in the file",
        ),
        pytest.param(
            "    display_name: Free\n",
            f"    display_name: Free\n    {METERED}",
            "gone",
            {"cost_micros", "premium_calls"},
            id="not in the file, and prices of those without a subscription",
        ),
    ],
)
def test_meters_without_a_price_in_the_plan_are_not_charged(
    edited: Edited, old: str, new: str, plan_type: str | None, charged: set[str]
) -> None:
    """What may have a price that the file does not have counts as charged."""
    plans = edited(old, new)

    meters = ("cost_micros", "premium_calls")
    assert {each for each in meters if plans.charges_money(plan_type, each)} == charged


@pytest.mark.parametrize(
    ("lookup_key", "product", "price", "expected"),
    [
        ("pro_seats", {}, {}, "pro"),
        ("legacy_pro", {}, {}, "pro"),
        ("pro_seats", {"plan_type": "free"}, {"plan_type": "free"}, "pro"),
        ("other", {"plan_type": "pro"}, {"plan_type": "free"}, "free"),
        (None, {"plan_type": "pro"}, {"plan_type": "gone"}, "pro"),
        (None, {}, {}, None),
    ],
)
def test_an_item_names_its_plan(
    plans: Plans,
    lookup_key: str | None,
    product: dict[str, str],
    price: dict[str, str],
    expected: str | None,
) -> None:
    """By lookup key, then by the price's metadata, then by the product's."""
    assert plans.plan_of_item(lookup_key, product, price) == expected


def test_seats_are_the_quantity_of_their_price(plans: Plans) -> None:
    """Other quantities are not seats."""
    assert plans.seats_price("pro_seats", {})
    assert not plans.seats_price("legacy_pro", {})
    assert not plans.seats_price(None, {})
    assert plans.seats_price(None, {"seats": "true"})


@pytest.mark.parametrize(
    ("server", "tool", "route"),
    [
        ("sql-own", "q", "own"),
        ("sql-x", "q", "premium"),
        ("sql-", "q", "premium"),
        ("Sql-x", "q", None),
        ("xsql-x", "q", None),
        ("browser", "open", "premium"),
        ("browsers", "open", None),
        ("files", "export_pdf", "exports"),
        ("files", "read", None),
    ],
)
def test_a_run_takes_the_first_route_that_matches(
    plans: Plans, server: str, tool: str, route: str | None
) -> None:
    """Case matters, and a pattern matches the whole name."""
    assert plans.route_of(server, tool) == route
    assert plans.priced_route_of(server, tool) == "tokens"


def test_charges_are_the_plans(plans: Plans) -> None:
    """An account without a subscription has those of the plan that stands in."""
    free = {"@premium": Charge("premium_calls", 0), "@tokens": Charge("cost_micros", 30)}

    assert plans.charges() == {
        None: free,
        "free": free,
        "pro": {"@premium": Charge("tool_call_executed", 0)},
    }
    assert plans.unique_tools_meters() == {None: None, "free": None, "pro": "unique_tools"}


def test_accounts_without_a_plan_are_charged_on_no_route(edited: Edited) -> None:
    """Nothing is charged on a meter that no plan names."""
    plans = edited("without_subscription: free", "without_subscription: deny")

    assert plans.charge(None) == {}


def test_a_limit_refuses_what_its_meter_counts(plans: Plans) -> None:
    """Unless it has patterns of its own."""
    free = plans.plans["free"]
    runs, premium, files = (plans.refused_by(free, limit) for limit in free.limits)

    assert runs == (Pattern("*", "*"),)
    assert premium == (Pattern("browser", "*"), Pattern("sql-*", "*"))
    assert files == (Pattern("files", "a"), Pattern("files", "b"))


_TEXT = st.text(alphabet="ab*.[", max_size=6)


@given(pattern=_TEXT.filter(bool), text=_TEXT)
def test_only_a_star_stands_for_other_text(pattern: str, text: str) -> None:
    """A pattern matches what its parts between stars are found in, in their order."""

    def matches(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(matches(pattern[1:], text[n:]) for n in range(len(text) + 1))
        return bool(text) and pattern[0] == text[0] and matches(pattern[1:], text[1:])

    assert Pattern(pattern, "*").matches(text, "any") == matches(pattern, text)
