"""What Stripe's answers mean, read from what passed over the wire."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_stripe.answer_classes import Effect
from nexus_stripe.answers import Receipt, StripeAnswer, Wording
from nexus_stripe.exchange import HttpExchange, answer_of
from stripe_reporter.stripe.responses import TABLE, Next, markdown, response_to

ANSWERS = st.builds(
    StripeAnswer,
    receipt=st.sampled_from(Receipt),
    status=st.one_of(st.none(), st.integers(100, 599)),
    type=st.sampled_from([None, "invalid_request_error", "idempotency_error", "api_error"]),
    code=st.sampled_from([None, "resource_missing", "lock_timeout"]),
    wording=st.one_of(st.none(), st.sampled_from(Wording)),
    should_retry=st.sampled_from([None, True, False]),
    limited_by=st.sampled_from([None, "global-rate"]),
)


def refusal(
    status: int,
    message: str = "",
    *,
    type_: str = "invalid_request_error",
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> StripeAnswer:
    """Return what a refusal of Stripe's becomes."""
    error: dict[str, str] = {"message": message, "type": type_} | ({"code": code} if code else {})
    named = {"Request-Id": "req_1", **(headers or {})}
    body = json.dumps({"error": error}).encode()
    return answer_of(HttpExchange(True, status, named, body), understood=False)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (StripeAnswer(Receipt.ANSWERED, status=200), "accepted"),
        (refusal(400, "An event already exists with identifier r-1."), "duplicate"),
        (refusal(400, code="duplicate_meter_event"), "duplicate"),
        (refusal(400, "No such customer: 'cus_1'", code="resource_missing"), "no_such_customer"),
        (refusal(404, "No such customer: 'cus_1'", code="resource_missing"), "no_such_customer"),
        (refusal(400, 'No active meter found for event name "x"'), "no_meter"),
        (refusal(400, code="archived_meter"), "no_meter"),
        (
            refusal(400, "The event timestamp cannot be more than 35 days in past. Please"),
            "too_old",
        ),
        (refusal(400, "cannot be more than 5 minutes in the future."), "in_future"),
        (refusal(400, "Invalid value in the event payload"), "refused"),
        (refusal(402, "declined", type_="card_error"), "refused"),
        (refusal(400, type_="idempotency_error"), "key_misused"),
        (refusal(409, type_="idempotency_error", code="idempotency_key_in_use"), "conflict"),
        (refusal(409, "overlapping"), "conflict"),
        (refusal(429, headers={"Stripe-Rate-Limited-Reason": "global-rate"}), "rate_limited"),
        (refusal(429, code="lock_timeout"), "locked"),
        (refusal(401, "Invalid API Key provided"), "unauthorized"),
        (refusal(403, "permissions"), "forbidden"),
        (refusal(404, "Unrecognized request URL"), "no_endpoint"),
        (refusal(500, type_="api_error"), "server_error"),
        (refusal(503, type_="api_error"), "unavailable"),
        (StripeAnswer(Receipt.UNREADABLE, status=503), "unreadable"),
        (StripeAnswer(Receipt.UNREADABLE, status=400), "unreadable"),
        (StripeAnswer(Receipt.LOST), "lost"),
        (StripeAnswer(Receipt.NEVER_SENT), "never_sent"),
    ],
)
def test_an_answer_is_found_in_the_table(answer: StripeAnswer, name: str) -> None:
    """Each answer that Stripe is known to give has its row."""
    assert response_to(answer).name == name


@given(ANSWERS)
def test_every_answer_has_a_row(answer: StripeAnswer) -> None:
    """Nothing Stripe may ever answer leaves a report without a decision."""
    assert response_to(answer).name in {row.name for row in TABLE}


@given(ANSWERS)
def test_only_an_answer_of_stripe_is_ever_definite(answer: StripeAnswer) -> None:
    """An answer of a proxy, or none, never means counted or refused."""
    response = response_to(answer)

    if answer.receipt in (Receipt.LOST, Receipt.UNREADABLE):
        assert response.effect is Effect.UNKNOWN
        assert response.next is Next.WAIT


@given(ANSWERS)
def test_should_retry_false_takes_a_new_key(answer: StripeAnswer) -> None:
    """After ``Stripe-Should-Retry: false`` the same key is never used again."""
    if answer.should_retry is False:
        assert not response_to(answer).same_key


def test_the_rows_are_consistent() -> None:
    """Counted is reported, a reason is rejected, an unknown effect waits, names are unique."""
    for row in TABLE:
        assert (row.effect is Effect.APPLIED) == (row.next is Next.REPORT)
        assert (row.reason is not None) == (row.next is Next.REJECT)
        assert row.effect is not Effect.UNKNOWN or row.next is Next.WAIT
    assert len({row.name for row in TABLE}) == len(TABLE)


def test_no_text_of_an_answer_is_kept() -> None:
    """Messages hold identifiers and keys, and are not kept."""
    answer = refusal(400, "No such customer: 'cus_secret'", code="resource_missing")

    assert "cus_secret" not in repr(answer)


def test_every_row_is_a_line_of_the_page() -> None:
    """The page is a Markdown table of five columns."""
    lines = list(markdown())

    assert len(lines) == len(TABLE) + 2
    assert {line.count("|") for line in lines} == {6}
