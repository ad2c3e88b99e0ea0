"""What the comparison of ways of recording says of its figures, and of those that are missing."""

import json

from harness import Cost
from report import Report, Turn

ABOUT = {
    "date": "2026-01-01T00:00:00+00:00",
    "cores": 2,
    "load_average_before": 0.1,
    "load_average_after": 2.0,
    "rounds": 3,
    "seconds": 60,
    "versions": {"python": "3.11", "rabbitmq": "4.0", "postgresql": "18"},
}


def _turns(*rates: float) -> list[Turn]:
    return [Cost(rate, {"python": 1e6 / rate, "broker": 1.0, "postgres": 2.0}) for rate in rates]


def test_ratio_compares_medians_of_the_rounds() -> None:
    """One slow round of a busy machine moves no ratio."""
    report = Report(
        ABOUT,
        {"usage-ingest": _turns(10_000, 100, 10_000), "one-by-one": _turns(500, 500, 5_000)},
    )

    written = json.loads(report.json)

    assert written["ratio_to_naive"] == {"one_process": 20.0}
    assert written["events_per_second"] == {"usage-ingest": 10_000, "one-by-one": 500}
    assert written["cpu_us_per_event"]["usage-ingest"]["python"] == 100.0


def test_way_without_a_figure_is_named_with_the_reason() -> None:
    """It is in no ratio, table row or bar, and its reason is on the page."""
    celery: list[Turn] = ["recorded nothing in 30 s", "recorded nothing in 30 s"]
    report = Report(ABOUT, {"usage-ingest": _turns(10_000, 10_000), "celery": celery})

    written = json.loads(report.json)

    assert written["ratio_to_celery"] == {}
    assert written["no_figure"] == {"celery": celery}
    assert "| Celery" not in report.markdown
    assert "2 of 2 turns have no figure: recorded nothing in 30 s" in report.markdown
    assert "Celery" not in report.svg


def test_way_with_a_missing_round_keeps_the_others() -> None:
    """A turn that failed costs a round, not the way's figures."""
    turns: list[Turn] = [*_turns(400, 600), "the benchmark's time was over"]
    report = Report(ABOUT, {"one-by-one": turns})

    written = json.loads(report.json)

    assert written["events_per_second"] == {"one-by-one": 500}
    assert written["rounds_measured"] == {"one-by-one": 2}
    assert "1 of 3 turns have no figure" in report.markdown
