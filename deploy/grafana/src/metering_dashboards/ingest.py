"""usage-ingest: what was received, recorded, claimed and forwarded."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section, quantiles, rates

NAME: Final = "ingest"
TITLE: Final = "Metering: usage-ingest"
DESCRIPTION: Final = "The ledger and its three loops: record, claim, relay."

_RECORD = Section(
    "Record",
    (
        Panel(
            "Tool runs by outcome",
            "due and waiting are new and billable; duplicate is harmless; id_taken, unreadable,"
            " timestamp_in_future and unstorable became dead letters; held_by_newer waits for the"
            " release that recorded it first.",
            "ops",
            (rates("usage_ingest_events_total", "outcome"),),
            "deadletterspresent",
        ),
        Panel(
            "From the run to the ledger",
            "Age of new events when recorded.",
            "s",
            quantiles("usage_ingest_event_to_ledger_seconds", of=(0.5, 0.95, 0.99)),
            "recordingtooslow",
        ),
        Panel(
            "Batch size",
            "Events of one recording transaction: small when idle, near 500 under full load.",
            "short",
            quantiles("usage_ingest_batch_size"),
            "nosuccess",
        ),
        Panel(
            "Duration of a round",
            "Of record and apply one transaction, of the loops one round. It is the database's.",
            "s",
            quantiles("usage_ingest_work_seconds", "work", of=(0.99,)),
            "workstandsstill",
        ),
    ),
)

_REPORTS = Section(
    "Claim and relay",
    (
        Panel(
            "Oldest unfinished",
            "Age of the oldest due event since its run, and of the oldest pending and forwarded"
            " report since it was made.",
            "s",
            (
                Query(
                    'max by (state) (usage_ingest_oldest_event_seconds{state="due"})',
                    "events {{state}}",
                ),
                Query("max by (state) (usage_ingest_oldest_report_seconds)", "reports {{state}}"),
            ),
            "usageunreported",
        ),
        Panel(
            "Unfinished",
            "Events and reports by state; rejected reports stay until a person settles them.",
            "short",
            (
                Query("max by (state) (usage_ingest_events_in_state)", "events {{state}}"),
                Query("max by (state) (usage_ingest_reports_in_state)", "reports {{state}}"),
            ),
            "usageunclaimed",
        ),
        Panel(
            "Reports by step",
            "created, forwarded and reported should run level; not_forwarded means that the broker"
            " does not confirm.",
            "ops",
            (rates("usage_ingest_reports_total", "step"),),
            "usageunreported",
        ),
        Panel(
            "Events claimed",
            "Events put into reports.",
            "ops",
            (Query("sum(rate(usage_ingest_events_claimed_total[$__rate_interval]))", "claimed"),),
            "usageunclaimed",
        ),
    ),
)

_HEALTH = Section(
    "Health",
    (
        Panel(
            "Standing still",
            "Seconds for which a loop or batch has not moved though it should; above 60 the service"
            " calls itself unhealthy.",
            "s",
            (Query("max by (work) (usage_ingest_work_still_seconds)", "{{work}}"),),
            "workstandsstill",
        ),
        Panel(
            "Consumption paused",
            "1 while the database is away, or reporting is paused by its setting.",
            "short",
            (
                Query("max by (queue) (usage_ingest_consumption_paused)", "{{queue}}"),
                Query("max(usage_ingest_reporting_paused)", "reporting"),
            ),
            "consumptionpaused",
        ),
        Panel(
            "Retries by tier",
            "Copies sent to wait. Handed-back messages wait in the shortest tier.",
            "ops",
            (rates("usage_ingest_messages_retried_total", "queue, tier"),),
            "nosuccess",
        ),
        Panel(
            "Dead letters by reason",
            "Made by this service; those the broker made itself are on the broker's dashboard.",
            "ops",
            (rates("usage_ingest_messages_dead_lettered_total", "queue, reason"),),
            "deadletterspresent",
        ),
        Panel(
            "Since the last success",
            "Time since a message of each queue was last processed: long is fine where none came.",
            "s",
            (
                Query(
                    "time() - max by (queue) (usage_ingest_last_done_timestamp_seconds > 0)",
                    "{{queue}}",
                ),
            ),
            "nosuccess",
        ),
        Panel(
            "Age of the figures",
            "Time since the ledger was measured.",
            "s",
            (Query("time() - max(usage_ingest_measured_timestamp_seconds)", "age"),),
            "figuresstale",
        ),
    ),
)

SECTIONS: Final = (_RECORD, _REPORTS, _HEALTH)
