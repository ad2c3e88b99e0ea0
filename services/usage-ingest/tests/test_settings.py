"""Which settings usage-ingest accepts."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from nexus_service.settings import SettingsError, load
from usage_ingest.settings import Settings

NEEDED = {"AMQP_URL": "amqp://u:hunter2@h/v", "DATABASE_URL": "postgresql://u:hunter2@h/d"}


def test_defaults_and_comma_separated_lists() -> None:
    """Only succeeded runs are billed, in windows of ten seconds, on one meter."""
    settings = load(Settings, {**NEEDED, "STRIPE_METER_DIMENSIONS": "server_id, tool_name"})

    assert settings.stripe_meter_dimensions == ("server_id", "tool_name")
    assert settings.report_window_seconds == 10
    assert settings.rules().billable_statuses == {"succeeded"}
    assert settings.rules().tokens_meter is None


def test_every_wrong_setting_is_named_without_its_value() -> None:
    """An operator can correct all of them at once, and paste the message anywhere."""
    wrong = {
        "AMQP_URL": "amqp://u:hunter2@h/v",
        "REPORT_WINDOW_SECONDS": "7",
        "BILLABLE_STATUSES": "succeeded,hunter2",
        "HTTP_PORT": "hunter2",
    }

    with pytest.raises(SettingsError) as error:
        load(Settings, wrong)

    for name in ("DATABASE_URL", "REPORT_WINDOW_SECONDS", "BILLABLE_STATUSES", "HTTP_PORT"):
        assert name in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(load(Settings, NEEDED))


@pytest.mark.parametrize(
    ("runs", "tokens", "named"),
    [
        ("runs", "runs", "STRIPE_TOKENS_METER_EVENT_NAME: must be another meter"),
        ("", "tool_call_executed", "STRIPE_TOKENS_METER_EVENT_NAME: must be another meter"),
        ("runs\x1b[2J", "", "STRIPE_METER_EVENT_NAME: "),
        ("runs", "to\nkens", "STRIPE_TOKENS_METER_EVENT_NAME: "),
        ("r" * 101, "", "STRIPE_METER_EVENT_NAME: "),
    ],
    ids=["one name twice", "the default twice", "control character", "newline", "too long"],
)
def test_meter_name_that_no_report_can_carry_is_refused(runs: str, tokens: str, named: str) -> None:
    """With one name for both meters a run would read its tokens instead of one run."""
    names = {"STRIPE_METER_EVENT_NAME": runs, "STRIPE_TOKENS_METER_EVENT_NAME": tokens}

    with pytest.raises(SettingsError, match=named):
        load(Settings, NEEDED | names)


@pytest.mark.parametrize("value", ["2026", "2026-11-30", "2026-11-30T12:00:00", "1796040000", "x"])
def test_moment_without_an_offset_is_refused(value: str) -> None:
    """A number taken for a time of 1970 would have everything reported twice."""
    with pytest.raises(SettingsError, match=r"REPORTING_LIVE_FROM: .*a time with its offset"):
        load(Settings, {**NEEDED, "REPORTING_LIVE_FROM": value})


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-14:00"])
def test_moment_outside_of_all_times_is_refused(value: str) -> None:
    """No database has it: each claim would fail."""
    with pytest.raises(SettingsError, match=r"REPORTING_LIVE_FROM: .*a time from 1970 on"):
        load(Settings, {**NEEDED, "REPORTING_LIVE_FROM": value})


def test_moment_is_read_with_its_offset() -> None:
    """Empty is none: all usage is reported."""
    given = load(Settings, {**NEEDED, "REPORTING_LIVE_FROM": "2026-11-30T12:00:00+01:00"})

    assert given.reporting_live_from == datetime(2026, 11, 30, 11, tzinfo=UTC)
    assert load(Settings, {**NEEDED, "REPORTING_LIVE_FROM": ""}).reporting_live_from is None


EXAMPLE = Path("deploy/plans.yaml")


def test_plans_come_from_their_file() -> None:
    """Without one there are none, and nothing changes."""
    assert load(Settings, NEEDED).rules().plans is None
    plans = load(Settings, NEEDED | {"PLANS_FILE": str(EXAMPLE)}).rules().plans
    assert plans is not None
    assert "pro" in plans.plans


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version: 1", "version: 2", r"PLANS_FILE: .*plans\.yaml:3: version: must be 1"),
        ("unknown_users", "default_meter: runs\nunknown_users", "PLANS_FILE: its default_meter"),
    ],
    ids=["a fault", "another meter of runs"],
)
def test_plans_that_can_not_be_used_are_refused(
    tmp_path: Path, old: str, new: str, named: str
) -> None:
    """With the line, or with the setting that they contradict."""
    path = tmp_path / "plans.yaml"
    text = EXAMPLE.read_text("utf-8").replace(old, new, 1)
    path.write_text(text.replace("tool_call_executed", "runs"), "utf-8")

    with pytest.raises(SettingsError, match=named):
        load(Settings, NEEDED | {"PLANS_FILE": str(path)})


@pytest.mark.parametrize("meter", ["llm_cost_micros", "unique_tools"])
def test_tokens_share_no_meter_with_what_plans_charge(meter: str) -> None:
    """Stripe would add tokens to micro-USD, and invoice both."""
    names = NEEDED | {"PLANS_FILE": str(EXAMPLE), "STRIPE_TOKENS_METER_EVENT_NAME": meter}

    with pytest.raises(SettingsError, match="STRIPE_TOKENS_METER_EVENT_NAME"):
        load(Settings, names)
