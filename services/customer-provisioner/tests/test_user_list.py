"""Lists of users: three formats, and entries that are not users."""

import contextlib
import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer_provisioner.user_list import UnreadableListError, UnusableEntry, read_users
from nexus_contracts import UserCreatedV2

ADA = UserCreatedV2(user_id=UUID(int=1), email="ada@example.com", name="Ada, Countess")
EVE = UserCreatedV2(user_id=UUID(int=2), email="eve@example.com")


def test_json_lines_are_read_one_by_one() -> None:
    """Empty lines and unknown fields are ignored."""
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


def test_an_unusable_entry_is_reported_and_not_shown() -> None:
    """The report has its number, fields and rules; the next entry is read."""
    lines = ["user_id,email", f"{ADA.user_id},secret", f"{EVE.user_id},{EVE.email}"]

    first, second = read_users(lines)

    assert first == UnusableEntry(1, "email: must be an e-mail address")
    assert second == EVE


def test_a_json_array_is_read_on_one_line_or_on_many() -> None:
    """Compact or indented."""
    users = [json.loads(each.model_dump_json()) for each in (ADA, EVE)]

    for indent in (None, 2):
        lines = json.dumps([*users, "secret"], indent=indent).splitlines(keepends=True)

        assert list(read_users(lines)) == [ADA, EVE, UnusableEntry(3, "body: must be an object")]


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
def test_a_table_is_read_with_each_separator(separator: str) -> None:
    """Where the comma is the decimal separator, Excel writes semicolons."""
    rows = [("Email", "USER_ID", "plan"), (str(EVE.email), str(EVE.user_id), "pro")]

    assert list(read_users(separator.join(row) + "\r\n" for row in rows)) == [EVE]


@pytest.mark.parametrize("text", ["", "\n \n", "user_id,email,name\n", "[]", " [ ]\n"])
def test_a_list_without_an_entry_is_refused(text: str) -> None:
    """A failed export looks like this, and "0 read" would look like success."""
    with pytest.raises(UnreadableListError, match="holds no user"):
        list(read_users(text.splitlines(keepends=True)))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{ADA.user_id},{ADA.email}\n", "no column user_id and no column email"),
        ("user_id|email\nsecret|secret\n", "no column user_id and no column email"),
        ("user_id,mail\nsecret,secret\n", "the first line names no column email"),
        ("sep=;\nuser_id;email\n", "no column user_id and no column email"),
        ('[{"user_id": "secret"', "but is not JSON"),
        ("[" * 5000, "but is not JSON"),
    ],
)
def test_an_unreadable_list_is_refused_and_not_shown(text: str, fault: str) -> None:
    """The fault is reported once, not for each entry."""
    with pytest.raises(UnreadableListError, match=fault) as refusal:
        list(read_users(text.splitlines(keepends=True)))

    assert "secret" not in str(refusal.value)


def test_a_table_that_is_cut_off_is_refused_and_not_shown() -> None:
    """A cell above the size limit ends the reading; the entries before it are valid."""
    users = read_users(["user_id,email", f"{EVE.user_id},{EVE.email}", f'"{"secret" * 30_000}'])

    assert next(users) == EVE
    with pytest.raises(UnreadableListError, match="is cut off") as error:
        next(users)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "lines",
    [
        ["stripe_customer_id,email,user_id", f"cus_1,,{ADA.user_id}"],
        [json.dumps({"user_id": str(ADA.user_id), "stripe_customer_id": "cus_1"})],
    ],
)
def test_a_customer_to_link_is_read_and_the_address_may_be_missing(lines: list[str]) -> None:
    """A cell may be empty; a field of JSON may be absent."""
    (read,) = read_users(lines)

    assert read == UserCreatedV2(user_id=ADA.user_id, stripe_customer_id="cus_1")


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"))))
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    """The list is refused, or each of its entries is a user or unusable."""
    with contextlib.suppress(UnreadableListError):
        assert all(isinstance(entry, UserCreatedV2 | UnusableEntry) for entry in read_users(lines))
