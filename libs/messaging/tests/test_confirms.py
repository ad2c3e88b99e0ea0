"""The bookkeeping of confirms: each publication gets its own answer."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.confirms import Answers, Confirms, UnmatchedReturnError
from nexus_messaging.errors import UnroutableError

LOST = UnroutableError("no queue")


def open_answers(number: int) -> Answers:
    """Return answers of which none is there."""
    return Answers(number, asyncio.Future())


@given(st.data())
async def test_each_publication_gets_its_own_answer(data: st.DataObject) -> None:
    """Whatever is returned or refused, and however the broker joins its confirms."""
    fates = data.draw(st.lists(st.sampled_from(["kept", "lost", "refused"]), min_size=1))
    marks = data.draw(st.lists(st.integers(0, 2), min_size=len(fates), max_size=len(fates)))
    marks = [mark + 10 * (fate == "lost") for mark, fate in zip(marks, fates, strict=True)]
    answers, confirms = open_answers(len(fates)), Confirms()
    for place, mark in enumerate(marks):
        confirms.expect(answers, place, mark)

    for mark, fate in zip(marks, fates, strict=True):
        if fate == "lost":
            confirms.returned(mark, LOST)
    tag = 0
    while tag < len(fates):
        refused = fates[tag] == "refused"
        alike = next((n for n, fate in enumerate(fates[tag:]) if (fate == "refused") != refused), 0)
        joined = data.draw(st.integers(1, alike or len(fates) - tag))
        tag += joined
        confirms.confirmed(tag, multiple=joined > 1, refused=refused)

    assert answers.complete.done()
    found = ["lost" if e is LOST else "refused" if e else "kept" for e in answers.errors]
    assert found == fates


async def test_return_of_a_copy_is_of_the_first_that_is_not_returned() -> None:
    """The broker returns in the order of publishing."""
    answers, confirms = open_answers(3), Confirms()
    for place in range(3):
        confirms.expect(answers, place, 7)

    confirms.returned(7, LOST)
    confirms.returned(7, LOST)
    confirms.confirmed(3, multiple=True, refused=False)

    assert answers.errors == [LOST, LOST, None]


async def test_return_that_matches_nothing_is_an_error() -> None:
    """If it were ignored, a lost message would count as confirmed."""
    answers, confirms = open_answers(1), Confirms()
    confirms.expect(answers, 0, 7)
    confirms.returned(7, LOST)

    for mark in (7, 8):
        with pytest.raises(UnmatchedReturnError):
            confirms.returned(mark, LOST)


async def test_confirm_of_nothing_that_waits_changes_nothing() -> None:
    """A broker may repeat itself."""
    answers, confirms = open_answers(2), Confirms()
    confirms.expect(answers, 0, 1)
    confirms.expect(answers, 1, 2)

    confirms.confirmed(1, multiple=False, refused=False)
    confirms.confirmed(1, multiple=False, refused=True)
    confirms.confirmed(9, multiple=False, refused=True)

    assert (answers.errors, answers.missing) == ([None, None], {1})


async def test_return_is_found_among_what_waits_however_much_was_published() -> None:
    """A channel lives for months; the search must not go over all that it has published."""
    answers, confirms = open_answers(1), Confirms()
    confirms._last = 10**12
    confirms.expect(answers, 0, 7)

    confirms.returned(7, LOST)

    assert answers.errors == [LOST]
