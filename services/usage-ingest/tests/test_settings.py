"""What usage-ingest accepts as settings."""

import pytest

from nexus_service.settings import SettingsError, load
from usage_ingest.settings import Settings

NEEDED = {"AMQP_URL": "amqp://u:hunter2@h/v", "DATABASE_URL": "postgresql://u:hunter2@h/d"}


def test_defaults_are_safe_and_lists_are_comma_separated() -> None:
    """Only succeeded runs are billed, in windows of ten seconds, on one meter."""
    settings = load(Settings, {**NEEDED, "STRIPE_METER_DIMENSIONS": "server_id, tool_name"})

    assert settings.stripe_meter_dimensions == ("server_id", "tool_name")
    assert settings.report_window_seconds == 10
    assert settings.rules().billable_statuses == {"succeeded"}
    assert settings.rules().tokens_meter is None


def test_everything_wrong_is_named_at_once_and_no_value_is_told() -> None:
    """An operator mends all of it in one go, and may paste the line anywhere."""
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
def test_meter_names_that_no_report_could_carry_are_refused(
    runs: str, tokens: str, named: str
) -> None:
    """Under one name for both meters a run would read its tokens in place of itself."""
    names = {"STRIPE_METER_EVENT_NAME": runs, "STRIPE_TOKENS_METER_EVENT_NAME": tokens}

    with pytest.raises(SettingsError, match=named):
        load(Settings, NEEDED | names)
