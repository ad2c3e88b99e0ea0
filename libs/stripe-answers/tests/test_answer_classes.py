"""Classes of answers: which answers they match, and what holds for each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_stripe import answer_classes
from nexus_stripe.answer_classes import AnswerClass, Effect, classify
from nexus_stripe.answers import Receipt, StripeAnswer, Wording

CLASSES = [each for each in vars(answer_classes).values() if isinstance(each, AnswerClass)]
"""All classes in the order of the module, from the specific to the general."""


def answered(status: int, type_: str | None = None, limited_by: str | None = None) -> StripeAnswer:
    """Return an answer that Stripe made."""
    return StripeAnswer(Receipt.ANSWERED, status=status, type=type_, limited_by=limited_by)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (answered(200), "accepted"),
        (StripeAnswer(Receipt.NEVER_SENT), "never_sent"),
        (StripeAnswer(Receipt.LOST), "lost"),
        (StripeAnswer(Receipt.UNREADABLE, status=200), "unreadable"),
        (StripeAnswer(Receipt.UNREADABLE, status=401), "unreadable"),
        (answered(500), "server_error"),
        (answered(501), "unavailable"),
        (answered(599), "unavailable"),
        (answered(401), "unauthorized"),
        (answered(403), "forbidden"),
        (answered(409), "conflict"),
        (answered(409, "idempotency_error"), "conflict"),
        (answered(429, limited_by="global-rate"), "rate_limited"),
        (answered(429), "locked"),
        (answered(400, "idempotency_error"), "key_misused"),
        (answered(400), "refused"),
        (answered(404), "refused"),
        (answered(499), "refused"),
        (answered(302), "unforeseen"),
        (StripeAnswer(Receipt.ANSWERED), "unforeseen"),
    ],
)
def test_an_answer_is_of_the_first_class_that_matches(answer: StripeAnswer, name: str) -> None:
    """By receipt, status, type and the header of the rate limit."""
    assert classify(answer, CLASSES).name == name


@given(
    st.builds(
        StripeAnswer,
        receipt=st.sampled_from([Receipt.NEVER_SENT, Receipt.LOST, Receipt.UNREADABLE]),
        status=st.none() | st.integers(100, 599),
        type=st.sampled_from([None, "idempotency_error"]),
        wording=st.none() | st.sampled_from(Wording),
    )
)
def test_without_a_response_from_stripe_it_is_an_outage(answer: StripeAnswer) -> None:
    """The same key is safe to repeat, and the effect is unknown unless nothing was sent."""
    kind = classify(answer, CLASSES)

    assert kind.outage
    assert kind.same_key
    assert (kind.effect is Effect.NOT_APPLIED) == (answer.receipt is Receipt.NEVER_SENT)


def test_names_are_unique() -> None:
    """They are label values of metrics."""
    assert len({each.name for each in CLASSES}) == len(CLASSES)
