"""What a run's tokens cost."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_plans import NoPrice, Plans, Priced, Tokens
from nexus_plans.model_prices import ModelPrice, cost

JANUARY = datetime(2026, 1, 31, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def price(plans: Plans, model: str, tokens: Tokens, at: datetime = JANUARY) -> int:
    """Return the cost of a run that has a price."""
    found = plans.price_of(model, tokens, at)
    assert isinstance(found, Priced)
    return found.micro_usd


def test_cached_tokens_are_an_addition_or_a_part(plans: Plans) -> None:
    """As the model's provider counts them."""
    tokens = Tokens(input=1000, output=100, cached=400)

    assert price(plans, "adding", tokens) == 1000 * 3 + 100 * 15 + 120
    assert price(plans, "within", tokens) == 600 + 100 * 8 + 200


def test_no_more_cached_tokens_than_input_are_charged_as_its_part(plans: Plans) -> None:
    """A publisher that adds them up wrongly is not charged twice."""
    assert price(plans, "within", Tokens(input=10, output=0, cached=400)) == 5


def test_the_price_of_the_runs_day_holds(plans: Plans) -> None:
    """From the first moment of the day in UTC; before all prices there is none."""
    tokens = Tokens(1000, 0, 0)

    assert price(plans, "adding", tokens, MARCH - timedelta(microseconds=1)) == 3000
    assert price(plans, "adding", tokens, MARCH) == 1000
    before = datetime(2025, 12, 31, 23, 59, tzinfo=UTC)
    assert plans.price_of("adding", tokens, before) == NoPrice("no_price")


def test_a_price_says_its_model_and_source(plans: Plans) -> None:
    """What is stored beside the run."""
    found = plans.price_of("adding-20260101", Tokens(1, None, None), MARCH)

    assert isinstance(found, Priced)
    assert (found.model, found.cached_tokens, found.price.source) == ("adding", "addition", "there")


@pytest.mark.parametrize(
    ("model", "tokens", "reason"),
    [
        (None, Tokens(1, 1, 1), "no_model"),
        ("adding", Tokens(None, None, None), "no_tokens"),
        ("unlisted", Tokens(1, 1, 1), "no_price"),
        ("Adding", Tokens(1, 1, 1), "no_price"),
        ("adding", Tokens(0, 10**10, 0), "too_much"),
    ],
)
def test_what_lacks_a_price_is_not_zero(
    plans: Plans, model: str | None, tokens: Tokens, reason: str
) -> None:
    """It has a reason instead."""
    assert plans.price_of(model, tokens, JANUARY) == NoPrice(reason)  # type: ignore[arg-type]


_COUNT = st.none() | st.integers(0, 10**10)
_RATE = st.integers(0, 10**12)


@given(st.builds(Tokens, _COUNT, _COUNT, _COUNT), _RATE, _RATE, _RATE)
def test_cost_is_the_exact_sum_rounded_once(
    tokens: Tokens, of_input: int, of_output: int, of_cached: int
) -> None:
    """Half a micro-dollar is rounded up, and nothing is rounded before."""
    price = ModelPrice.model_validate(
        {"from": JANUARY.date(), "input": of_input, "output": of_output, "cached": of_cached,
         "source": "x"}
    )  # fmt: skip
    exact = Fraction(
        (tokens.input or 0) * of_input
        + (tokens.output or 0) * of_output
        + (tokens.cached or 0) * of_cached,
        10**6,
    )

    found = cost(tokens, price, "addition")

    assert Fraction(-1, 2) < found - exact <= Fraction(1, 2)
    cheaper = of_cached <= of_input or tokens.input is None
    assert not cheaper or cost(tokens, price, "part") <= found
