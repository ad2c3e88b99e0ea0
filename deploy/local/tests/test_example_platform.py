"""What an example platform decides by, and that it sells what the file of plans has."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_stack.catalogue import EXAMPLE_PLANS, METER
from local_stack.example_platform import allowed
from local_stack.local_stripe import PRO, enterprise
from local_stack.usage_page import METERS, TEXTS

CASES = Path(__file__).parents[3] / "libs/publisher/tests/entitlement_cases.json"


@pytest.fixture(scope="module")
def plans() -> Any:
    """The committed plans."""
    return yaml.safe_load(EXAMPLE_PLANS.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("plan", "prices"), [("pro", PRO), ("enterprise", enterprise(5))])
def test_subscription_has_each_price_of_its_plan(plans: Any, plan: str, prices: Any) -> None:
    """With a price missing, a meter's usage would be charged to nobody."""
    listed = {price["lookup_key"]: price for price in plans["plans"][plan]["prices"]}

    assert set(prices) == set(listed)
    for key, quantity in prices.items():
        metered = listed[key]["recurring"].get("usage_type") == "metered"
        assert (quantity is None) == metered


def test_page_names_each_meter_and_limit_of_the_plans(plans: Any) -> None:
    """The file names its own meters; a reader is shown no name of the file."""
    limits = {limit["name"] for plan in plans["plans"].values() for limit in plan["limits"]}

    assert set(METERS) == {METER}
    assert all(each["display_name"] for each in plans["meters"].values())
    assert set(TEXTS["limitNames"]) == limits


ANSWERED = [
    case
    for case in json.loads(CASES.read_text(encoding="utf-8"))["cases"]
    if case["expect"]["why"] in {"allowed", "denied", "limit_reached"}
]


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: str(case["name"]))
def test_run_is_decided_as_the_clients_decide(case: dict[str, Any]) -> None:
    """The demo asks without a client's code, and says what a client would."""
    answer = json.loads(case["body"])

    decided = allowed(answer, case["server_id"], case["tool_name"])

    assert decided is case["expect"]["allowed"]
