"""Known sources and their bound."""

from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.flood import Flood, FloodLimit
from nexus_messaging.reasons import Reason
from nexus_messaging.sources import KNOWN_AFTER, MAX_KNOWN, Sources


def test_number_of_known_sources_is_bounded() -> None:
    """The least recently seen source becomes unknown; one that is held back stays known."""
    sources = Sources(FloodLimit(0.5, 10))
    for number in range(MAX_KNOWN):
        for _ in range(KNOWN_AFTER):
            sources.count_processed([f"s{number}"])
    sources.held["s0"] = Flood(6, 10, Reason.INVALID)
    sources.count_processed(["s1"])

    for _ in range(KNOWN_AFTER):
        sources.count_processed(["new"])

    names = ("s0", "s1", "s2", "new")
    assert [sources.known_as(name) for name in names] == ["s0", "s1", None, "new"]


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=60), st.integers(1, 30))
def test_batch_counts_as_its_messages_one_by_one(sources: list[str | None], size: int) -> None:
    """A source becomes known with the same message, and the last results are the same."""
    singly, together = (Sources(FloodLimit(0.5, 10)) for _ in range(2))

    for source in sources:
        singly.count_processed([source])
    for start in range(0, len(sources), size):
        together.count_processed(sources[start : start + size])

    assert list(together._ends) == list(singly._ends)
    for source in ("a", "b", None):
        assert together.known_as(source) == singly.known_as(source)
        known = singly.known_as(source)
        assert together._windows[known]._ended == singly._windows[known]._ended


def test_changing_names_displace_no_known_source() -> None:
    """A publisher that changes its name with each good message does not affect others."""
    sources = Sources(FloodLimit(0.5, 10))
    for _ in range(KNOWN_AFTER):
        sources.count_processed(["known"])

    for number in range(10 * MAX_KNOWN):
        sources.count_processed([f"s{number}"])

    assert sources.known_as("known") == "known"


def test_changing_names_do_not_keep_a_source_unknown() -> None:
    """The oldest candidates are removed first."""
    sources = Sources(FloodLimit(0.5, 10))
    for number in range(2 * MAX_KNOWN):
        sources.count_processed([f"s{number}"])

    for _ in range(KNOWN_AFTER):
        sources.count_processed(["new"])

    assert sources.known_as("new") == "new"
