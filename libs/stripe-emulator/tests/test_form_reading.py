"""How forms are decoded and parameters read, without a server."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stripe_emulator.errors import StripeError
from stripe_emulator.forms import decode
from stripe_emulator.parameters import Integer, Metadata, Parameters, Text, TextMap, Texts

NAMES = st.text(st.characters(exclude_characters="[]", exclude_categories=["Cs"]), min_size=1)
FORMS = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.dictionaries(NAMES, children, min_size=1, max_size=3),
    max_leaves=8,
)


def encoded(value: Any, name: str) -> list[tuple[str, str]]:
    """Encode a nested map the way Stripe's clients do."""
    if isinstance(value, str):
        return [(name, value)]
    return [pair for key, item in value.items() for pair in encoded(item, f"{name}[{key}]")]


@given(st.dictionaries(NAMES, FORMS, max_size=4))
def test_what_was_nested_is_nested_again(form: dict[str, Any]) -> None:
    """Decoding undoes the bracket notation for maps of any depth."""
    pairs = [pair for name, value in form.items() for pair in encoded(value, name)]

    assert decode(pairs) == form


def test_both_notations_of_an_array_are_read() -> None:
    """``a[]=x`` and ``a[1]=y&a[0]=x`` are arrays, in their order."""
    texts = Parameters({"a": Texts()})

    assert texts.read(decode([("a[]", "x"), ("a[]", "y")])) == {"a": ["x", "y"]}
    assert texts.read(decode([("a[1]", "y"), ("a[0]", "x")])) == {"a": ["x", "y"]}


@pytest.mark.parametrize(
    "pairs",
    [
        [("", "x")],
        [("[a]", "x")],
        [("a[b", "x")],
        [("a", "x"), ("a[b]", "y")],
        [("a[b]", "y"), ("a", "x")],
        [("a[]", "x"), ("a[b]", "y")],
        [("a[b]", "y"), ("a[]", "x")],
    ],
)
def test_names_that_cannot_be_read_are_refused(pairs: list[tuple[str, str]]) -> None:
    """A malformed name, or one that contradicts an earlier one, is a 400."""
    with pytest.raises(StripeError) as refusal:
        decode(pairs)

    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        ({"nonsense": "x"}, "parameter_unknown", "nonsense"),
        ({"name": "a", "inner": {"nonsense": "x"}}, "parameter_unknown", "inner[nonsense]"),
        ({}, "parameter_missing", "name"),
        ({"name": ""}, "parameter_invalid_empty", "name"),
        ({"name": "abcdef"}, None, "name"),
        ({"name": {"x": "y"}}, None, "name"),
        ({"name": "a", "count": "1.5"}, "parameter_invalid_integer", "count"),
        ({"name": "a", "count": "0"}, "parameter_invalid_integer", "count"),
        ({"name": "a", "count": "101"}, "parameter_invalid_integer", "count"),
        ({"name": "a", "inner": "x"}, None, "inner"),
        ({"name": "a", "map": "x"}, None, "map"),
        ({"name": "a", "map": {"k": "abcdef"}}, None, "map[k]"),
        ({"name": "a", "expand": "x"}, None, "expand"),
    ],
)
def test_what_a_parameter_is_not_is_refused_by_its_name(
    form: Any, code: str | None, param: str
) -> None:
    """Every refusal names the parameter, nested ones with their brackets."""
    parameters = Parameters(
        {
            "name": Text(5),
            "count": Integer(1, 100),
            "inner": Parameters({"name": Text()}),
            "map": TextMap(5),
        },
        ("name",),
    )

    with pytest.raises(StripeError) as refusal:
        parameters.read(form)

    assert (refusal.value.status, refusal.value.code) == (400, code)
    assert refusal.value.error["param"] == param
    assert not refusal.value.saved


@pytest.mark.parametrize(
    "metadata",
    [{"k" * 41: "v"}, {"k": "v" * 501}, {str(i): "v" for i in range(51)}, {"k": {"x": "y"}}, "x"],
)
def test_metadata_keeps_within_its_limits(metadata: Any) -> None:
    """50 keys of 40 characters with values of 500 are the most there can be."""
    with pytest.raises(StripeError):
        Metadata().read(metadata, "metadata")
