"""What routes are charged as, and what a file may not say."""

import json

from nexus_contracts.fields import MAX_VALUE
from nexus_plans import Charge
from nexus_plans.model_prices import MAX_MICRO_USD
from nexus_plans.parts import MAX_MARKUP
from usage_ingest.charging import charged_value, parameter
from usage_ingest.storage.claims import MAX_EVENTS


def test_charges_by_plan_are_one_parameter() -> None:
    """Without a plan they have a name that no plan has."""
    written = parameter({None: {"@premium": Charge("runs")}, "pro": {"@t": Charge("tokens", 30)}})

    assert json.loads(written or "") == {
        "": {"@premium": {"meter": "runs", "percent": 100}},
        "pro": {"@t": {"meter": "tokens", "percent": 130}},
    }


def test_no_charges_are_no_parameter() -> None:
    """The claim then looks up no plans."""
    assert parameter({}) is None


def test_claim_of_the_dearest_runs_has_a_value_that_stripe_takes() -> None:
    """The ledger refuses a higher value, and the claim would fail each time, with all others."""
    dearest = charged_value(MAX_EVENTS * MAX_MICRO_USD, Charge("micros", MAX_MARKUP))

    assert dearest <= MAX_VALUE
