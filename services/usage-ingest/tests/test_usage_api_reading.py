"""Requests of the usage API: spans, and who may ask for what."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_service.api_keys import ApiKey
from nexus_service.problems import ProblemError
from usage_ingest.usage_api.reading import (
    By,
    Scope,
    entitlements_scope,
    usage_query,
    whole_spans,
)
from usage_ingest.usage_api.tokens import TokenUser

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
USER, OTHER, ACCOUNT = uuid4(), uuid4(), uuid4()
SERVICE = ApiKey("gate", "", ("*",), ("entitlements.read", "usage.read"))
PUBLISHER = ApiKey("hub", "", ("*",), ("*", "usage"))
MEMBER = TokenUser(USER, None)
ADMIN = TokenUser(USER, ACCOUNT)

MOMENTS = st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def refusal(caller: ApiKey | TokenUser, **parameters: str) -> tuple[str, str]:
    """Return the code and the text of a refused query."""
    with pytest.raises(ProblemError) as refused:
        usage_query(caller, parameters, NOW)
    return refused.value.problem.code, refused.value.problem.detail


def test_span_is_the_last_thirty_days_unless_given() -> None:
    """In whole days of UTC, today included."""
    query = usage_query(MEMBER, {}, NOW)

    assert query.by is By.DAY
    assert query.start == datetime(2026, 1, 30, tzinfo=UTC)
    assert query.end == datetime(2026, 3, 2, tzinfo=UTC)


def test_times_may_have_any_offset() -> None:
    """A span is in UTC, whatever the page writes."""
    query = usage_query(
        MEMBER, {"from": "2026-02-01T01:30:00+02:00", "to": "2026-02-01", "by": "hour"}, NOW
    )

    assert query.start == datetime(2026, 1, 31, 23, tzinfo=UTC)
    assert query.end == datetime(2026, 2, 1, tzinfo=UTC)


@given(MOMENTS, st.timedeltas(timedelta(microseconds=1), timedelta(days=400)), st.sampled_from(By))
def test_span_covers_what_was_asked_in_whole_hours_or_days(
    start: datetime, length: timedelta, by: By
) -> None:
    """No more than an hour or a day too much at each end."""
    first, last = whole_spans(start, start + length, by)

    assert first <= start < first + by.length
    assert last - by.length < start + length <= last
    assert whole_spans(first, last, by) == (first, last)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"by": "week"}, "by"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-02-01T00:00:00"}, "from"),
        ({"from": "20260201"}, "from"),
        ({"to": "9999-12-31"}, "to"),
        ({"from": "0001-01-01T00:00:00+14:00"}, "from"),
        ({"from": "1999-01-01"}, "from"),
        ({"from": "2026-03-01", "to": "2026-03-01"}, "from"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "from"),
        ({"from": "2024-03-01"}, "from"),
        ({"by": "hour", "from": "2026-01-01"}, "from"),
        ({"account": "one"}, "account"),
        ({"user": "one"}, "user"),
    ],
)
def test_bad_parameter_is_named(parameters: dict[str, str], field: str) -> None:
    """The answer names the parameter and the rule."""
    code, detail = refusal(MEMBER, **parameters)

    assert code == "invalid"
    assert detail.startswith(field)


def test_user_reads_their_own_usage_alone() -> None:
    """Naming another user or account is forbidden; with a claim, the account is the default."""
    assert usage_query(MEMBER, {"user": str(USER)}, NOW).scope == Scope(
        USER, None, frozenset({USER})
    )
    assert usage_query(ADMIN, {}, NOW).scope == Scope(USER, ACCOUNT, frozenset({USER, ACCOUNT}))
    assert usage_query(ADMIN, {"account": str(USER)}, NOW).scope.account_id == USER
    assert refusal(MEMBER, user=str(OTHER))[0] == "forbidden"
    assert refusal(MEMBER, account=str(ACCOUNT))[0] == "forbidden"
    assert refusal(ADMIN, account=str(OTHER))[0] == "forbidden"


def test_service_needs_the_right_by_name() -> None:
    """A key for every type of event may read nothing."""
    assert usage_query(SERVICE, {"user": str(USER)}, NOW).scope == Scope(USER, None, None)
    assert refusal(SERVICE)[0] == "invalid"
    assert refusal(PUBLISHER, user=str(USER))[0] == "forbidden"
    assert entitlements_scope(SERVICE, str(USER)) == Scope(USER, None, None)
    for caller, user in ((PUBLISHER, USER), (MEMBER, OTHER)):
        with pytest.raises(ProblemError) as refused:
            entitlements_scope(caller, str(user))
        assert refused.value.problem.code == "forbidden"
    assert entitlements_scope(MEMBER, str(USER)) == Scope(USER, None, frozenset({USER}))


@given(
    st.builds(TokenUser, st.just(USER), st.sampled_from([None, ACCOUNT, USER])),
    st.sampled_from([None, USER, ACCOUNT, OTHER]),
)
def test_no_token_reads_an_account_that_it_does_not_claim(caller: TokenUser, asked: object) -> None:
    """Whatever is asked, the totals that may be read are the user's own and the claimed ones."""
    try:
        scope = usage_query(caller, {} if asked is None else {"account": str(asked)}, NOW).scope
    except ProblemError:
        assert asked not in (caller.user_id, caller.account_id)
        return

    assert scope.user_id == USER
    assert scope.readable == frozenset({USER, caller.account_id or USER})
    assert scope.account_id is None or scope.may_read(scope.account_id)
