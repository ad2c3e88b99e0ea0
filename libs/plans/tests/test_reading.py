"""Reading the file: what is refused, and that the text says where."""

import json
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nexus_plans import PlansError, load, schema
from nexus_plans.__main__ import FILE as SCHEMA
from nexus_plans.__main__ import main
from nexus_plans.reading import read

from .conftest import FILE, Edited

EXAMPLE = Path("deploy/plans.yaml")

WRONG = {
    "a key that is unknown": ("display_name: Pro\n", "display_name: Pro\n    colour: red\n", 24,
                              "plans.pro.colour: is no known field"),
    "a key that stands twice": ("  free:\n", "  pro: {display_name: X}\n  free:\n", 23,
                                "plans.pro: stands here twice"),
    "a key that YAML takes for false": ("  pro:\n    display", "  no:\n    display", 22,
                                        "plans.no: must be text: put it in quotes"),
    "text for a number": ("limit: 10", 'limit: "10"', 19,
                          "plans.free.limits.0.limit: must be a whole number"),
    "a missing key": (", meter: premium_calls, limit: 5}", ", limit: 5}", 20,
                      "plans.free.limits.1.meter: is missing"),
    "a plan that is not there": ("without_subscription: free", "without_subscription: fre", 3,
                                 "without_subscription: must be `deny` or one of the plans"),
    "a meter that is not there": ("meter: premium_calls, limit: 5}", "meter: x, limit: 5}", 20,
                                  "plans.free.limits.1.meter: 'x' is neither"),
    "a route that is not there": ('{"@premium": tool_call', '{"@premiun": tool_call', 25,
                                  "plans.pro.meters.@premiun: is no route"),
    "a route that is not gated": ("premium: [premium]", "premium: [own]", 24,
                                  "plans.pro.premium.0: 'own' is no gated route"),
    "a gate on costs": ("{priced: models}", "{priced: models, gated: true}", 12,
                        "routes.tokens: must not be gated"),
    "a markup without a meter": ('markup_percent: {"@tokens"', 'markup_percent: {"@own"', 17,
                                 "plans.free.markup_percent.@own: has no meter"),
    "a part of a run as markup": ('markup_percent: {"@tokens"', 'markup_percent: {"@premium"', 17,
                                  "plans.free.markup_percent.@premium: must be a multiple of 100"),
    "runs and costs on one meter": ('"@tokens": cost_micros}', '"@tokens": premium_calls}', 16,
                                    "plans.free.meters.@tokens: 'premium_calls' counts runs"),
    "unique tools on the meter of runs": ("_meter: unique_tools", "_meter: tool_call_executed", 26,
                                          "plans.pro.unique_tools_meter: 'tool_call_executed'"),
    "a lookup key of two prices": ("[legacy_pro]", "[pro_seats]", 29,
                                   "plans.pro.prices.0.lookup_key: 'pro_seats' is"),
    "a product that is not there": ("product: pro\n", "product: prod\n", 30,
                                    "plans.pro.prices.0.product: 'prod' is none"),
    "two amounts": ("unit_amount: 100", 'unit_amount: 100\n        unit_amount_decimal: "1"', 29,
                    "plans.pro.prices.0: must have one of unit_amount"),
    "metered without a meter": ("{interval: month}", "{interval: month, usage_type: metered}", 32,
                                "plans.pro.prices.0.recurring: must have a meter if"),
    "tiers without an end": ("unit_amount: 100",
                             "tiers_mode: volume\n        tiers: [{up_to: 5, flat_amount: 1}]",
                             29,
                             "plans.pro.prices.0: must have inf as up_to of the last"),
    "prices out of order": ("from: 2026-03-01", "from: 2025-03-01", 41,
                            "models.adding.prices: must be in the order of their dates"),
    "a name that another model takes": ("  within:\n",
                                        '  within:\n    names: ["adding-small-*"]\n', 45,
                                        "models.within.names.0: 'adding-small-*' is 'adding'"),
    "limits of one name": ("{name: files", "{name: runs", 19,
                           "plans.free.limits.0.name: 'runs' is the name of several"),
    "a plan called deny": ("  pro:\n    display", "  deny:\n    display", 22,
                           "plans.deny: must have another name"),
    "another version": ("version: 1", "version: 2", 1, "version: must be 1"),
    "broken YAML": ("{name: Pro}", "{name: Pro", 37, "is no YAML"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_fault_is_named_with_its_line(
    edited: Edited, old: str, new: str, line: int, text: str
) -> None:
    """The text has file, line, place and rule."""
    with pytest.raises(PlansError) as caught:
        edited(old, new)

    assert f"plans.yaml:{line}: {text}" in str(caught.value)


def test_all_faults_are_named_at_once(edited: Edited) -> None:
    """Who mends the file does so once."""
    with pytest.raises(PlansError) as caught:
        edited("limit: 10, hard: true", "limit: -1, hard: 7")

    assert len(str(caught.value).splitlines()) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """An operator sees the path."""
    with pytest.raises(PlansError, match=r"absent\.yaml: can't be read: No such file"):
        load(tmp_path / "absent.yaml")


def test_the_example_fits_the_schema() -> None:
    """The published schema accepts what is read."""
    load(EXAMPLE)
    written = json.loads(json.dumps(yaml.safe_load(EXAMPLE.read_text("utf-8")), default=str))

    jsonschema.validate(written, schema(), format_checker=jsonschema.FormatChecker())


def test_the_schema_of_the_repository_is_up_to_date(tmp_path: Path) -> None:
    """The check fails on another text."""
    assert main(["--check", str(SCHEMA)]) == 0
    stale = tmp_path / "plans.json"
    stale.write_text("{}", "utf-8")
    assert main(["--check", str(stale)]) == 1


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused_as_plans(data: bytes) -> None:
    """No input raises anything else."""
    with pytest.raises(PlansError):
        read(data, "plans.yaml")


@given(
    st.integers(0, len(FILE) - 1),
    st.integers(0, 30),
    st.text(alphabet="{}[]:,\"'@-*&!?|>%# \n\tazAZ019", max_size=8),
)
def test_any_edit_is_read_or_refused_as_plans(begin: int, length: int, text: str) -> None:
    """A slip of the hand is a PlansError, or another valid file."""
    data = FILE[:begin] + text + FILE[begin + length :]
    with suppress(PlansError):
        read(data.encode(), "plans.yaml")
