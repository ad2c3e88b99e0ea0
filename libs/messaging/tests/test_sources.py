"""Which sources are known, and how many."""

from nexus_messaging.flood import Flood, FloodLimit
from nexus_messaging.reasons import Reason
from nexus_messaging.sources import KNOWN_AFTER, MOST_KNOWN, Sources


def test_no_more_sources_are_kept_than_the_bound() -> None:
    """Whoever was not seen for longest is unknown again; who is held back never is."""
    sources = Sources(FloodLimit(0.5, 10))
    for number in range(MOST_KNOWN):
        for _ in range(KNOWN_AFTER):
            sources.done(f"s{number}")
    sources.held["s0"] = Flood(6, 10, Reason.INVALID)
    sources.done("s1")

    for _ in range(KNOWN_AFTER):
        sources.done("new")

    names = ("s0", "s1", "s2", "new")
    assert [sources.known_as(name) for name in names] == ["s0", "s1", None, "new"]


def test_passing_names_push_out_no_known_source() -> None:
    """A publisher whose good messages each have another name costs the others nothing."""
    sources = Sources(FloodLimit(0.5, 10))
    for _ in range(KNOWN_AFTER):
        sources.done("known")

    for number in range(10 * MOST_KNOWN):
        sources.done(f"s{number}")

    assert sources.known_as("known") == "known"


def test_passing_names_keep_no_source_from_becoming_known() -> None:
    """Those on their way there make room for who comes later, the oldest first."""
    sources = Sources(FloodLimit(0.5, 10))
    for number in range(2 * MOST_KNOWN):
        sources.done(f"s{number}")

    for _ in range(KNOWN_AFTER):
        sources.done("new")

    assert sources.known_as("new") == "new"
