"""Whether usage is billed, and where it is delayed."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section, quantiles

NAME: Final = "overview"
TITLE: Final = "Metering: overview"
DESCRIPTION: Final = "Whether tool runs are billed by Stripe, and where they are delayed."

_NOW = Section(
    "Now",
    (
        Panel(
            "Oldest unanswered report",
            "Age of the oldest usage report without an answer from Stripe.",
            "s",
            (Query("max(usage_ingest_oldest_report_seconds)", "age"),),
            "usageunreported",
            threshold=900,
            width=4,
        ),
        Panel(
            "Oldest usage without customer",
            "Age of the oldest usage whose user has no Stripe customer. At 35 days it expires.",
            "s",
            (Query('max(usage_ingest_oldest_event_seconds{state="waiting"})', "age"),),
            "usagewithoutcustomer",
            threshold=3600,
            width=4,
        ),
        Panel(
            "Dead letters",
            "Messages in all dead-letter queues. Each needs an operator.",
            "short",
            (Query("sum(queue:dead_letters:sum)", "dead letters"),),
            "deadletterspresent",
            threshold=1,
            width=3,
        ),
        Panel(
            "Circuit to Stripe",
            "1 while no report is sent: the key is refused, Stripe is down, or a meter is missing.",
            "short",
            (Query("max(stripe_reporter_circuit_open)", "open"),),
            "reportercircuitopen",
            threshold=1,
            width=3,
        ),
        Panel(
            "Oldest difference",
            "Age of the oldest hour in which Stripe's own sum is not what the ledger expects.",
            "s",
            (Query("max(usage_ingest_oldest_difference_seconds)", "age"),),
            "differencefound",
            threshold=86_400,
            width=4,
        ),
        Panel(
            "Targets down",
            "Services and brokers that Prometheus cannot scrape.",
            "short",
            (Query("count(up == 0) or vector(0)", "down"),),
            "targetdown",
            threshold=1,
            width=3,
        ),
        Panel(
            "Firing alerts",
            "Alerts that fire now.",
            "short",
            (Query('count(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),),
            "alerts",
            threshold=1,
            width=3,
        ),
    ),
)

_FLOW = Section(
    "Flow",
    (
        Panel(
            "Recorded and reported quantity",
            "Billable quantity per second, recorded in the ledger and counted by Stripe. The second"
            " follows the first within about one window; a lasting gap is usage that is delayed.",
            "short",
            (
                Query(
                    "sum by (meter) (rate(usage_ingest_recorded_value_total[$__rate_interval]))",
                    "{{meter}} recorded",
                ),
                Query(
                    "sum by (meter) (rate(usage_ingest_reported_value_total[$__rate_interval]))",
                    "{{meter}} reported",
                ),
            ),
            "usageunreported",
        ),
        Panel(
            "Where it sticks",
            "Unfinished work by stage, in the order of the flow. The first stage that grows is the"
            " cause.",
            "short",
            (
                Query(
                    'sum by (queue) (queue:work_messages:sum{queue="usage-ingest.tool-executed"})',
                    "1 to be recorded",
                ),
                Query(
                    'max by (state) (usage_ingest_events_in_state{state="waiting"})',
                    "2 {{state}} for a customer",
                ),
                Query('max by (state) (usage_ingest_events_in_state{state="due"})', "3 {{state}}"),
                Query(
                    'max by (state) (usage_ingest_reports_in_state{state="pending"})',
                    "4 reports {{state}}",
                ),
                Query(
                    'max by (state) (usage_ingest_reports_in_state{state="forwarded"})',
                    "5 reports {{state}}",
                ),
            ),
            "usageunreported",
        ),
        Panel(
            "From the run to the ledger",
            "Age of events when recorded. Objective: a minute for 99.9 %.",
            "s",
            quantiles("usage_ingest_event_to_ledger_seconds"),
            "recordingtooslow",
        ),
        Panel(
            "From the run to Stripe",
            "Age of a report's earliest run when Stripe counted it. Objective: 15 min for 99 %.",
            "s",
            quantiles("stripe_reporter_report_delay_seconds"),
            "reportingtooslow",
        ),
        Panel(
            "Late",
            "Share of events recorded later than a minute and of reports counted later than 15"
            " minutes, over the last hour.",
            "percentunit",
            (
                Query("recorded:late:ratio_rate1h", "recorded late"),
                Query("reported:late:ratio_rate1h", "reported late"),
            ),
            "recordingtooslow",
        ),
        Panel(
            "Dead letters by queue",
            "They decrease only when an operator moves or settles them.",
            "short",
            (Query("queue:dead_letters:sum", "{{queue}}"),),
            "deadletterspresent",
        ),
    ),
)

SECTIONS: Final = (_NOW, _FLOW)
