"""What routes are charged as, and what a file may not say."""

import json

from nexus_plans import Charge
from usage_ingest.charging import parameter


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
