"""What routes are charged as, and what a file may not say."""

import json

import pytest

from usage_ingest.charging import MOST_MARKUP, Charge, parameter


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


@pytest.mark.parametrize(
    ("meter", "markup"), [("", 0), ("@premium", 0), ("runs", -1), ("runs", MOST_MARKUP + 1)]
)
def test_charge_that_no_claim_could_report_is_refused(meter: str, markup: int) -> None:
    """A claim that fails would be tried for ever."""
    with pytest.raises(ValueError, match=r"no meter's name|a markup is"):
        Charge(meter, markup)
