"""Rejections become error reports by window and meter, with a clock of one's own."""

from typing import Any

from stripe_emulator.clock import Clock
from stripe_emulator.error_reports import MAX_SAMPLES, ErrorReports, Rejection

NOON = 1_790_856_000  # 2026-10-01T12:00:00Z
TEN = 10.0


class Scene:
    """Error reports, and the events they became, at a time that stands still until it is set."""

    def __init__(self) -> None:
        self.now = float(NOON)
        self.events: list[dict[str, Any]] = []
        self.reports = ErrorReports(Clock(lambda: self.now), self.events.append, lambda: TEN)

    def reject(self, at: float, meter: str | None = "mtr_1", **changes: Any) -> None:
        """Note a rejection."""
        described = {"code": "meter_event_invalid_value", "message": "no", "request": "r:1"}
        self.reports.note(Rejection(at, meter, **{**described, "sampled": True, **changes}))

    def settle(self, now: float) -> list[dict[str, Any]]:
        """Return the reports that a time brings."""
        self.now = now
        self.events.clear()
        self.reports.settle()
        return list(self.events)


def test_a_window_of_ten_seconds_is_reported_two_seconds_after_its_end() -> None:
    """As in the example that Stripe publishes: its end does not belong to it."""
    scene = Scene()
    scene.reject(NOON + 10)
    scene.reject(NOON + 19.9, request="s:1", message="not this one either")
    scene.reject(NOON + 20)

    assert scene.settle(NOON + 21.9) == []
    [event] = scene.settle(NOON + 22)

    assert event["created"] == "2026-10-01T12:00:22.000Z"
    assert event["type"] == "v1.billing.meter.error_report_triggered"
    url = "/v1/billing/meters/mtr_1"
    assert event["related_object"] == {"id": "mtr_1", "type": "billing.meter", "url": url}
    samples = [
        {"error_message": "no", "request": {"identifier": "r:1"}},
        {"error_message": "not this one either", "request": {"identifier": "s:1"}},
    ]
    code = "meter_event_invalid_value"
    error_types = [{"code": code, "error_count": 2, "sample_errors": samples}]
    assert event["data"] == {
        "developer_message_summary": "There are 2 invalid events",
        "reason": {"error_count": 2, "error_types": error_types},
        "validation_start": "2026-10-01T12:00:10.000Z",
        "validation_end": "2026-10-01T12:00:20.000Z",
    }
    assert [each["data"]["reason"]["error_count"] for each in scene.settle(NOON + 60)] == [1]


def test_each_meter_has_a_report_and_no_meter_another_type() -> None:
    """What names no meter has no related object."""
    scene = Scene()
    scene.reject(NOON, "mtr_1")
    scene.reject(NOON, "mtr_2")
    scene.reject(NOON, None, code="no_meter")

    reports = scene.settle(NOON + 12)

    assert [(each["type"], (each["related_object"] or {}).get("id")) for each in reports] == [
        ("v1.billing.meter.error_report_triggered", "mtr_1"),
        ("v1.billing.meter.error_report_triggered", "mtr_2"),
        ("v1.billing.meter.no_meter_found", None),
    ]


def test_a_report_counts_all_and_names_some() -> None:
    """Few of many, and none of a code whose events may not be named."""
    scene = Scene()
    for number in range(MAX_SAMPLES + 5):
        scene.reject(NOON, request=f"r{number}:1")
    scene.reject(NOON, code="archived_meter", sampled=False)

    [event] = scene.settle(NOON + 12)

    types = event["data"]["reason"]["error_types"]
    assert event["data"]["reason"]["error_count"] == MAX_SAMPLES + 6
    assert [(one["error_count"], len(one["sample_errors"])) for one in types] == [
        (MAX_SAMPLES + 5, MAX_SAMPLES),
        (1, 0),
    ]


def test_windows_that_end_together_are_reported_in_their_order() -> None:
    """After a jump of the clock, too."""
    scene = Scene()
    for after in (30, 0, 20):
        scene.reject(NOON + after)

    starts = [event["data"]["validation_start"] for event in scene.settle(NOON + 3600)]

    assert starts == sorted(starts)
    assert len(starts) == 3
