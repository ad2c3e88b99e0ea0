"""Is money flowing, and where does it stick?"""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section, quantiles

NAME: Final = "overview"
TITLE: Final = "Metering: overview"
DESCRIPTION: Final = "Whether tool runs become money in Stripe, and where they stick if not."

_NOW = Section(
    "Now",
    (
        Panel(
            "Oldest unanswered report",
            "Age of the oldest usage report that Stripe has not answered for.",
            "s",
            (Query("max(usage_ingest_oldest_report_seconds)", "age"),),
            "usageunreported",
            worry_from=900,
            width=4,
        ),
        Panel(
            "Oldest usage without customer",
            "Age of the oldest usage whose user has no Stripe customer. At 35 days it is lost.",
            "s",
            (Query('max(usage_ingest_oldest_event_seconds{state="waiting"})', "age"),),
            "usagewithoutcustomer",
            worry_from=86400,
            width=4,
        ),
        Panel(
            "Dead letters",
            "Messages that wait for a person, in all dead-letter queues.",
            "short",
            (Query("sum(queue:dead_letters:sum)", "dead letters"),),
            "deadletterspresent",
            worry_from=1,
            width=4,
        ),
        Panel(
            "Circuit to Stripe",
            "1 while no report is sent: the key is refused, Stripe is away, or a meter is missing.",
            "short",
            (Query("max(stripe_reporter_circuit_open)", "shut"),),
            "reportercircuitopen",
            worry_from=1,
            width=4,
        ),
        Panel(
            "Targets down",
            "Services and brokers that Prometheus can't reach.",
            "short",
            (Query("count(up == 0) or vector(0)", "down"),),
            "targetdown",
            worry_from=1,
            width=4,
        ),
        Panel(
            "Firing alerts",
            "Alerts that fire now.",
            "short",
            (Query('count(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),),
            "alerts",
            worry_from=1,
            width=4,
        ),
    ),
)

_FLOW = Section(
    "Flow",
    (
        Panel(
            "Recorded and reported quantity",
            "Billable quantity per second taken into the ledger and counted by Stripe. The second"
            " follows the first within about a window; a lasting gap is usage that sticks.",
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
            "Unfinished work by stage, in the order of the flow: the first that grows is the one to"
            " look at.",
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
            "Age of events when recorded. Promised: a minute for 99.9 %.",
            "s",
            quantiles("usage_ingest_event_to_ledger_seconds"),
            "recordingtooslow",
        ),
        Panel(
            "From the run to Stripe",
            "Age of a report's earliest run when Stripe counted it. Promised: 15 minutes for 99 %.",
            "s",
            quantiles("stripe_reporter_report_delay_seconds"),
            "reportingtooslow",
        ),
        Panel(
            "Too late",
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
            "They go down only when a person moves or settles them.",
            "short",
            (Query("queue:dead_letters:sum", "{{queue}}"),),
            "deadletterspresent",
        ),
    ),
)

SECTIONS: Final = (_NOW, _FLOW)
