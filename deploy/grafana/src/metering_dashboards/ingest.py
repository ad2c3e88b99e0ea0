"""usage-ingest: events received, recorded and claimed, reports forwarded; and its events API."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section, quantiles, rates

NAME: Final = "ingest"
TITLE: Final = "Metering: usage-ingest"
DESCRIPTION: Final = "The ledger, its loops, and whether Stripe's own sums agree with it."

_RECORD = Section(
    "Record",
    (
        Panel(
            "Tool runs by outcome",
            "due and waiting are new and billable; duplicate and details_added (a run that was"
            " recorded by version 1 came as version 2) are harmless; id_taken, unreadable,"
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
            "One transaction of record and apply, one round of the loops. Most of it is the"
            " database's.",
            "s",
            quantiles("usage_ingest_work_seconds", "work", of=(0.99,)),
            "workstalled",
        ),
    ),
)

_REPORTS = Section(
    "Claim and relay",
    (
        Panel(
            "Oldest unfinished",
            "Age of the oldest due event since its run, and of the oldest pending and forwarded"
            " report since it was created.",
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
            "Runs without a price",
            "Runs whose model the price table lacks: their cost waits for it. And runs per second"
            " whose tokens are not priced, by the reason.",
            "short",
            (
                Query("max(usage_ingest_unpriced_runs)", "waiting for a price"),
                rates("usage_ingest_runs_not_priced_total", "reason"),
            ),
            "runswithoutprice",
        ),
        Panel(
            "Unfinished",
            "Events and reports by state. Rejected reports stay until an operator settles them, and"
            " those rejected later stay for good.",
            "short",
            (
                Query("max by (state) (usage_ingest_events_in_state)", "events {{state}}"),
                Query("max by (state) (usage_ingest_reports_in_state)", "reports {{state}}"),
            ),
            "usageunclaimed",
        ),
        Panel(
            "Reports by step",
            "created, forwarded and reported should be equal; not_forwarded means that the broker"
            " does not confirm, rejected_later that Stripe took back what it had accepted.",
            "ops",
            (rates("usage_ingest_reports_total", "step"),),
            "usageunreported",
        ),
        Panel(
            "Events claimed",
            "Events claimed for reports.",
            "ops",
            (Query("sum(rate(usage_ingest_events_claimed_total[$__rate_interval]))", "claimed"),),
            "usageunclaimed",
        ),
    ),
)

_LATER_WORD = Section(
    "Stripe's later word",
    (
        Panel(
            "Open differences",
            "Hours in which Stripe's own sum of a customer and meter is not what the ledger"
            " expects. lower: Stripe lacks what it had accepted. higher: it has more than was sent."
            " gone: the customer was deleted. foreign: the ledger knows no such customer.",
            "short",
            (Query("max by (kind) (usage_ingest_differences)", "{{kind}}"),),
            "differencefound",
        ),
        Panel(
            "Oldest difference",
            "Time since the oldest open difference was first seen. One that a later reading does"
            " not find is closed.",
            "s",
            (Query("max by (kind) (usage_ingest_oldest_difference_seconds)", "{{kind}}"),),
            "differencefound",
        ),
        Panel(
            "Differences found and closed",
            "New differences by kind, and those that a later reading no longer found.",
            "short",
            (
                Query(
                    "sum by (kind)"
                    " (increase(usage_ingest_differences_found_total[$__rate_interval]))",
                    "found: {{kind}}",
                ),
                Query(
                    "sum(increase(usage_ingest_differences_closed_total[$__rate_interval]))",
                    "closed",
                ),
            ),
            "differencefound",
        ),
        Panel(
            "Stripe's lag",
            "From Stripe's last answer in an hour to the first reading that showed all of it, where"
            " an earlier reading did not. STRIPE_SUMMARY_LAG_SECONDS must be above it.",
            "s",
            quantiles("usage_ingest_stripe_lag_seconds", of=(0.5, 0.99)),
            "differencefound",
        ),
        Panel(
            "Since the last reading",
            "Time since Stripe's sums were last read, of whichever customer; 0 if they never were.",
            "s",
            (Query("max(usage_ingest_last_reading_seconds)", "since"),),
            "sumsnotread",
        ),
        Panel(
            "Reports by placement",
            "Reports that Stripe accepted, a minute later: in_period and in_grace are on their"
            " invoice. after_finalisation and not_subscribed are on none; not_charged is on none by"
            " its account's plan. ended_early: the subscription was canceled at once, and it is in"
            " doubt. unknown: the account's subscriptions were not read yet.",
            "short",
            (
                Query(
                    "sum by (placement)"
                    " (increase(usage_ingest_reports_placed_total[$__rate_interval]))",
                    "{{placement}}",
                ),
            ),
            "usageonnoinvoice",
        ),
        Panel(
            "Rejected later",
            "Reports that Stripe accepted and does not count after all. They stay so, and are"
            " billed by hand.",
            "short",
            (
                Query(
                    'max(usage_ingest_reports_in_state{state="rejected_later"})', "rejected later"
                ),
            ),
            "reportsrejectedlater",
        ),
    ),
)

_LIMITS = Section(
    "Limits",
    (
        Panel(
            "Thresholds reached",
            "Shares of limits that were announced; not_announced are repeated with the same id.",
            "short",
            (rates("usage_ingest_thresholds_total", "step"),),
            "thresholdsnotannounced",
        ),
    ),
)

_HEALTH = Section(
    "Health",
    (
        Panel(
            "Stalled",
            "Seconds since a loop or batch should have completed a round. Above 60 the liveness"
            " probe fails.",
            "s",
            (Query("max by (work) (usage_ingest_work_still_seconds)", "{{work}}"),),
            "workstalled",
        ),
        Panel(
            "Consumption paused",
            "1 while the database is unavailable, or reporting is paused by its setting.",
            "short",
            (
                Query("max by (queue) (usage_ingest_consumption_paused)", "{{queue}}"),
                Query("max(usage_ingest_reporting_paused)", "reporting"),
            ),
            "consumptionpaused",
        ),
        Panel(
            "Retries by tier",
            "Copies sent to a retry tier. Handed-back messages go to the shortest tier.",
            "ops",
            (rates("usage_ingest_messages_retried_total", "queue, tier"),),
            "nosuccess",
        ),
        Panel(
            "Dead letters by reason",
            "Made by this service; those of the broker itself are on its dashboard.",
            "ops",
            (rates("usage_ingest_messages_dead_lettered_total", "queue, reason"),),
            "deadletterspresent",
        ),
        Panel(
            "Since the last success",
            "Time since a message of each queue was last processed. It grows while none arrives.",
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
            "Age of the totals",
            "Time since runs and amounts were folded into the totals by hour.",
            "s",
            (Query("max by (part) (usage_ingest_totals_age_seconds)", "{{part}}"),),
            "totalsstale",
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

_EVENTS_API = Section(
    "Events API",
    (
        Panel(
            "Requests by answer",
            "confirmed is 202: the broker has confirmed all. invalid, forbidden and the like are"
            " the publisher's fault; broker_unavailable and overloaded are 503.",
            "reqps",
            (rates("events_api_requests_total", "answer"),),
            "eventsnotaccepted",
        ),
        Panel(
            "Events by type",
            "Events that the broker has confirmed.",
            "ops",
            (rates("events_api_events_total", "type"),),
            "eventsnotaccepted",
        ),
        Panel(
            "Duration of a request",
            "From its headers to its answer; most of it is the wait for the broker's confirms.",
            "s",
            quantiles("events_api_request_seconds"),
            "eventsnotaccepted",
        ),
    ),
)

_USAGE_API = Section(
    "Usage API",
    (
        Panel(
            "Requests by route and answer",
            "not_modified is 304. token_expired is usual: a page then asks its host for a new one."
            " database_unavailable and overloaded are 503.",
            "reqps",
            (rates("usage_api_requests_total", "route, answer"),),
            "usagenotanswered",
        ),
        Panel(
            "Duration of an answer to a page or service",
            "From its headers to its answer; most of it is the database's.",
            "s",
            quantiles("usage_api_request_seconds"),
            "usagenotanswered",
        ),
    ),
)

SECTIONS: Final = (_RECORD, _REPORTS, _LATER_WORD, _LIMITS, _EVENTS_API, _USAGE_API, _HEALTH)
