"""Lists of users: two formats, and entries that are no users."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer_provisioner.user_list import UnreadableListError, Unusable, read_users
from nexus_contracts import UserCreated

ADA = UserCreated(user_id=UUID(int=1), email="ada@example.com", name="Ada, Countess")
EVE = UserCreated(user_id=UUID(int=2), email="eve@example.com")


def test_json_lines_are_read_one_by_one() -> None:
    """Empty lines are no entries, unknown fields are ignored."""
    lines = ["\n", ADA.model_dump_json() + "\n", f'{{"plan": 1, {EVE.model_dump_json()[1:]}']

    assert list(read_users(lines)) == [ADA, EVE]


def test_a_table_is_read_by_its_header() -> None:
    """Columns in any order, quoted cells, an empty cell for no name, surplus cells dropped."""
    lines = [
        "email,name,user_id,plan\r\n",
        f'{ADA.email},"{ADA.name}",{ADA.user_id},pro\r\n',
        f"{EVE.email},,{EVE.user_id},pro,more\r\n",
    ]

    assert list(read_users(lines)) == [ADA, EVE]


def test_an_entry_that_is_no_user_stops_nothing_and_is_not_repeated() -> None:
    """It is told by its number, with fields and rules."""
    lines = ["user_id,email", f"{ADA.user_id},secret", f"{EVE.user_id},{EVE.email}"]

    first, second = read_users(lines)

    assert first == Unusable(1, "email: must be an e-mail address")
    assert second == EVE


def test_an_empty_list_has_no_users() -> None:
    """Nor does one of empty lines."""
    assert list(read_users([])) == []
    assert list(read_users(["\n", " \n"])) == []


def test_a_table_that_breaks_off_says_so_without_quoting() -> None:
    """A cell beyond every measure ends the reading; what came before was read."""
    users = read_users(["user_id,email", f"{EVE.user_id},{EVE.email}", f'"{"secret" * 30_000}'])

    assert next(users) == EVE
    with pytest.raises(UnreadableListError, match="breaks off") as error:
        next(users)
    assert "secret" not in str(error.value)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"))))
def test_no_list_makes_reading_fail(lines: list[str]) -> None:
    """Whatever is in it, each entry is a user or unusable."""
    assert all(isinstance(entry, UserCreated | Unusable) for entry in read_users(lines))
