"""Which account pays for a user, in whatever order assignments are made."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from customer_provisioner.assignments import Assignment, account_at, announcement, assign
from customer_provisioner.revisions import next_revision

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
USER, ACME, OTHER = uuid4(), uuid4(), uuid4()


def made(
    history: list[Assignment], account_id: UUID, since: int | None, at: int = 0
) -> list[Assignment]:
    """Return the history after an assignment from so many hours past noon, made at an hour."""
    begin = None if since is None else NOON + timedelta(hours=since)
    now = NOON + timedelta(hours=at)
    added = assign(history, USER, account_id, begin, now=now, made_by="test")
    return history if added is None else [*history, added]


def payer(history: list[Assignment], hour: int) -> UUID:
    """Return who pays so many hours past noon."""
    return account_at(history, USER, NOON + timedelta(hours=hour))


def test_a_user_without_assignments_pays_for_themselves() -> None:
    """And so does one who is assigned to their own id."""
    history = made([], ACME, 0)
    back = made(history, USER, 2, at=2)

    assert payer([], 0) == USER
    assert [payer(back, hour) for hour in (-1, 0, 1, 2)] == [USER, ACME, ACME, USER]


def test_an_assignment_of_the_past_holds_from_its_time_on() -> None:
    """Until one that begins later, though that was made before."""
    history = made(made([], ACME, 4, at=4), OTHER, 2, at=5)

    assert [payer(history, hour) for hour in (1, 2, 3, 4, 9)] == [USER, OTHER, OTHER, ACME, ACME]


def test_of_two_assignments_from_one_time_on_the_later_made_holds() -> None:
    """So a mistake can be corrected."""
    history = made(made([], ACME, 1), OTHER, 1)

    assert payer(history, 1) == OTHER
    assert history[0].revision < history[1].revision


def test_an_assignment_that_holds_already_is_not_made_again() -> None:
    """A repeated request changes nothing, with a time and without."""
    history = made(made([], ACME, None, at=1), OTHER, 5)

    assert made(history, ACME, 1, at=3) == history
    assert made(history, ACME, None, at=3) == history
    assert made([], USER, None) == []


def test_a_time_of_its_own_is_kept_though_the_account_pays_already() -> None:
    """Or another that is made between them later would hold beyond that time."""
    history = made(made([], ACME, 1), ACME, 5)
    history = made(history, OTHER, 3, at=9)

    assert [payer(history, hour) for hour in (1, 3, 5)] == [ACME, OTHER, ACME]


def test_a_revision_rises_past_those_of_a_lost_database() -> None:
    """What was made after the backup had lower ones than what is made after the restore."""
    lost = made(made([], ACME, 0, at=1), OTHER, 0, at=2)
    restored = made(lost[:1], USER, 0, at=3)

    assert restored[-1].revision > lost[-1].revision


@given(last=st.integers(0, 2**62), seconds=st.integers(0, 10**9))
def test_a_revision_is_above_the_last_and_fits_the_database(last: int, seconds: int) -> None:
    """Also if the clock was set back."""
    revision = next_revision(last, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))

    assert last < revision < 2**63


def test_an_announcement_made_again_is_the_same_event() -> None:
    """Consumers ignore it, and its body is equal to the last byte."""
    (assignment,) = made([], ACME, -7, at=1)

    event = announcement(assignment)

    assert event.body() == announcement(assignment).body()
    assert event.data.since == NOON - timedelta(hours=7)
    assert (event.data.user_id, event.data.account_id) == (USER, ACME)
