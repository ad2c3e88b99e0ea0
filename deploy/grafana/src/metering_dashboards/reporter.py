"""stripe-reporter: calls to Stripe, their answers, and reports by outcome."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section, quantiles, rates

NAME: Final = "reporter"
TITLE: Final = "Metering: stripe-reporter"
DESCRIPTION: Final = "Reports on their way to Stripe: calls, answers, rate and circuit breaker."

_STRIPE = Section(
    "Stripe",
    (
        Panel(
            "Calls by operation and answer",
            "accepted and duplicate are success. unauthorized and forbidden are the key;"
            " never_sent, lost and unavailable are an outage."
            " list_meters is the circuit breaker's probe.",
            "ops",
            (rates("stripe_reporter_calls_total", "call, answer"),),
            "stripe-outage",
        ),
        Panel(
            "Duration of a call",
            "How long Stripe takes to answer; a call is given up after 10 s.",
            "s",
            quantiles("stripe_reporter_call_seconds", "call"),
            "stripe-outage",
        ),
        Panel(
            "Circuit breaker",
            "1 while no report is sent, for this cause.",
            "short",
            (Query("max by (cause) (stripe_reporter_circuit_open)", "{{cause}}"),),
            "reportercircuitopen",
        ),
        Panel(
            "Pace",
            "Calls per second that are allowed now, and made. Stripe's 429s halve the first.",
            "ops",
            (
                Query("max(stripe_reporter_calls_per_second_allowed)", "allowed"),
                Query(
                    'sum(rate(stripe_reporter_calls_total{call="meter_event"}[$__rate_interval]))',
                    "made",
                ),
            ),
            "scaling",
        ),
        Panel(
            "Wait for the limiter",
            "How long a call waits for the rate limit. If it is long, the limit is the bottleneck.",
            "s",
            quantiles("stripe_reporter_limiter_wait_seconds"),
            "scaling",
        ),
    ),
)

_REPORTS = Section(
    "Reports",
    (
        Panel(
            "Reports by outcome",
            "reported_again had been counted before; waiting, deferred and customer_busy come"
            " again; fenced, taken and rejected became dead letters.",
            "ops",
            (rates("stripe_reporter_reports_total", "outcome"),),
            "deadletterspresent",
        ),
        Panel(
            "From the run to Stripe",
            "Age of a report's earliest run when Stripe counted it.",
            "s",
            quantiles("stripe_reporter_report_delay_seconds", of=(0.5, 0.95, 0.99)),
            "reportingtooslow",
        ),
        Panel(
            "Outcome unknown",
            "Time since the oldest call of unknown outcome. At 23 hours it is never repeated but"
            " dead-lettered.",
            "s",
            (Query("max(stripe_reporter_oldest_unknown_seconds)", "oldest"),),
            "outcomeunknown",
        ),
        Panel(
            "Queue of reports",
            "Reports waiting to be sent, unacknowledged ones included.",
            "short",
            (
                Query(
                    'sum by (queue) (queue:work_messages:sum{queue=~"stripe-reporter.+"})',
                    "{{queue}}",
                ),
            ),
            "usageunreported",
        ),
        Panel(
            "Retries by tier",
            "Copies sent to a retry tier.",
            "ops",
            (rates("stripe_reporter_messages_retried_total", "tier"),),
            "stripe-outage",
        ),
        Panel(
            "Dead letters by reason",
            "Made by this service.",
            "ops",
            (rates("stripe_reporter_messages_dead_lettered_total", "reason"),),
            "deadletterspresent",
        ),
    ),
)

SECTIONS: Final = (_STRIPE, _REPORTS)
