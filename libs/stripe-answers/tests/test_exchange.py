"""Whether Stripe made an answer, decided by what passed over the wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_stripe.answers import Receipt, StripeAnswer, Wording, recognise
from nexus_stripe.exchange import HttpExchange, answer_of

MINE = {"Request-Id": "req_1"}
REFUSAL: dict[str, Any] = {"type": "invalid_request_error", "message": "No such customer: 'cus_9'"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
HEADERS = st.dictionaries(
    st.sampled_from(["Request-Id", "Date", "Stripe-Should-Retry", "WWW-Authenticate", "X"]),
    st.sampled_from(["req_1", "true", "", "Sat, 99 Foo 2026", 'Bearer realm="Stripe"']) | st.text(),
)


def answered(
    status: int, body: object, headers: dict[str, str] | None = None, *, understood: bool = False
) -> StripeAnswer:
    """Return the answer that a response with a JSON body amounts to."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    given_headers = MINE if headers is None else headers
    return answer_of(HttpExchange(True, status, given_headers, sent), understood=understood)


def test_a_refusal_is_read_without_its_message() -> None:
    """Type, code, parameter and what the message is about; never the message."""
    answer = answered(400, {"error": {**REFUSAL, "code": "resource_missing", "param": "payload"}})

    assert answer == StripeAnswer(
        Receipt.ANSWERED,
        status=400,
        type="invalid_request_error",
        code="resource_missing",
        param="payload",
        wording=Wording.NO_CUSTOMER,
        request_id="req_1",
    )
    assert "cus_9" not in repr(answer)


@pytest.mark.parametrize("mode", ["live", "test"])
def test_an_object_of_the_other_mode_is_not_a_missing_one(mode: str) -> None:
    """Only the message says so; what the refusal is about stays the same."""
    message = f"No such customer: 'cus_9'; a similar object exists in {mode} mode, but a … key was"
    answer = answered(404, {"error": {**REFUSAL, "message": message}})

    assert answer.other_mode
    assert answer.wording is Wording.NO_CUSTOMER
    assert "cus_9" not in repr(answer)


@pytest.mark.parametrize(
    "body",
    [
        {"error": "forbidden"},
        {"error": ["forbidden"]},
        {"error": None},
        {"error": 403},
        {"error": {}},
        {"error": {"message": "no type"}},
        {"error": {**REFUSAL, "type": None}},
        {"error": {**REFUSAL, "type": {"a": 1}}},
        {"error": {**REFUSAL, "message": 5}},
        {"error": {**REFUSAL, "code": ["x"]}},
        {"error": {**REFUSAL, "code": "\x00"}},
        {"error": {**REFUSAL, "param": {"x": 1}}},
        {"error": {**REFUSAL, "param": "a\nb"}},
        {"message": "no"},
        ["error"],
        "error",
        None,
        b"<html>",
        b"",
        b"\xff\xfe",
        b'{"error": {"type": "invalid_request_error"',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 407, 429, 500, 503])
def test_a_body_without_stripes_error_object_is_unreadable(body: object, status: int) -> None:
    """With any status, and even with a Request-Id."""
    assert answered(status, body).receipt is Receipt.UNREADABLE


@pytest.mark.parametrize("request_id", [None, "", "5f2a", "|abc.1.", "req_", "req_ä", "x req_1"])
@pytest.mark.parametrize("status", [200, 400, 403, 404, 500])
def test_an_answer_without_stripes_request_id_is_unreadable(
    request_id: str | None, status: int
) -> None:
    """A gateway may copy the form of the error object."""
    headers = {} if request_id is None else {"Request-Id": request_id}

    answer = answered(status, {"error": REFUSAL}, headers, understood=True)

    assert answer.receipt is Receipt.UNREADABLE


def test_a_refused_key_is_answered_without_a_request_id() -> None:
    """The live API sends none for an unknown key; a gateway's 401 has no realm of Stripe."""
    realm = {"www-authenticate": 'Bearer realm="Stripe"'}

    assert answered(401, {"error": REFUSAL}, realm).receipt is Receipt.ANSWERED
    assert answered(401, {"error": REFUSAL}, {}).receipt is Receipt.UNREADABLE
    assert answered(403, {"error": REFUSAL}, realm).receipt is Receipt.UNREADABLE
    assert answered(401, {"error": "no"}, realm).receipt is Receipt.UNREADABLE


def test_a_success_that_was_not_understood_is_unreadable() -> None:
    """A 200 with another body was not made by Stripe, or is not the requested object."""
    assert answered(200, {}, understood=True).success
    assert answered(200, {}, understood=False).receipt is Receipt.UNREADABLE


def test_an_unwritten_request_is_never_sent_a_written_one_lost() -> None:
    """A body that is cut off is no answer."""
    assert answer_of(HttpExchange(), understood=False).receipt is Receipt.NEVER_SENT
    assert answer_of(HttpExchange(written=True), understood=False).receipt is Receipt.LOST
    cut_off = HttpExchange(written=True, status=200, headers=MINE)
    assert answer_of(cut_off, understood=False).receipt is Receipt.LOST


def test_headers_are_read_without_regard_to_case() -> None:
    """As HTTP demands; an unknown value is ignored."""
    headers = {"REQUEST-ID": "req_1", "stripe-should-RETRY": "false", "date": "nonsense"}

    answer = answered(409, {"error": REFUSAL}, headers)

    assert answer.should_retry is False
    assert answer.date is None
    assert (
        answered(409, {"error": REFUSAL}, {**MINE, "Stripe-Should-Retry": "?"}).should_retry is None
    )


@given(
    status=st.integers(100, 599),
    headers=HEADERS,
    body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()),
    understood=st.booleans(),
)
def test_any_response_becomes_a_value(
    status: int, headers: dict[str, str], body: bytes, *, understood: bool
) -> None:
    """None of them raises."""
    answer = answer_of(HttpExchange(True, status, headers, body), understood=understood)

    assert answer.receipt in {Receipt.ANSWERED, Receipt.UNREADABLE}


def test_a_code_outranks_the_message() -> None:
    """Stripe may change a message, but not a code."""
    assert recognise("No such customer: 'x'", "archived_meter") is Wording.NO_METER
