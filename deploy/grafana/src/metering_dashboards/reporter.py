"""stripe-reporter: calls to Stripe, reports by outcome, and what Stripe says later."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section, quantiles, rates

NAME: Final = "reporter"
TITLE: Final = "Metering: stripe-reporter"
DESCRIPTION: Final = (
    "Reports on their way to Stripe: calls, answers, rate and circuit breaker. What Stripe says of"
    " them later."
)

_STRIPE = Section(
    "Stripe",
    (
        Panel(
            "Calls by operation and answer",
            "accepted and duplicate are success. unauthorized and forbidden are the key;"
            " never_sent, lost and unavailable are an outage."
            " list_meters is the circuit breaker's probe, hourly_sums reads Stripe's own sums,"
            " error_report what it says later.",
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
            " again; fenced, taken and rejected became dead letters; rejected_later came again"
            " after Stripe had said that it does not count it.",
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

_LATER_WORD = Section(
    "Stripe's later word",
    (
        Panel(
            "Errors that Stripe reported later",
            "Reports that Stripe had accepted and does not count, as its error reports say. It"
            " names samples only: new are attempts that were not known, foreign are requests of"
            " other senders.",
            "short",
            (
                Query("sum(increase(stripe_reporter_meter_errors_total[$__rate_interval]))", "all"),
                Query(
                    "sum by (sample)"
                    " (increase(stripe_reporter_meter_error_samples_total[$__rate_interval]))",
                    "sample: {{sample}}",
                ),
            ),
            "reportsrejectedlater",
        ),
        Panel(
            "Rejected attempts by verdict",
            "What an attempt that Stripe does not count means for its report. rejected: its usage"
            " is on no invoice. other_attempt: another one was accepted. by_hand: a person has"
            " settled it, and it stays so.",
            "short",
            (
                Query(
                    "sum by (verdict)"
                    " (increase(stripe_reporter_late_rejections_total[$__rate_interval]))",
                    "{{verdict}}",
                ),
            ),
            "reportsrejectedlater",
        ),
        Panel(
            "Rejections not announced",
            "How long Stripe's oldest rejection has been known without the ledger being informed.",
            "s",
            (Query("max(stripe_reporter_oldest_rejection_seconds)", "oldest"),),
            "rejectionsnotannounced",
        ),
        Panel(
            "Sums read by outcome",
            "Readings of Stripe's own sums, one for each customer and meter. not_read is tried"
            " again later: Stripe refused the key, limited the rate, or did not answer."
            " no_meter: the account has no meter of that name.",
            "ops",
            (rates("stripe_reporter_sums_read_total", "outcome"),),
            "sumsnotread",
        ),
        Panel(
            "Sums due",
            "Customers' meters whose sums are due to be read. It rises by all that were reported"
            " and falls at the pace of STRIPE_READS_PER_SECOND; what never falls to 0 is too much"
            " for that pace.",
            "short",
            (Query("max(stripe_reporter_sums_due)", "due"),),
            "sumsnotread",
        ),
        Panel(
            "Sums overdue",
            "Time since the oldest of them were due. From a day on, differences are not seen within"
            " the day.",
            "s",
            (Query("max(stripe_reporter_sums_overdue_seconds)", "oldest"),),
            "sumsnotread",
        ),
    ),
)

SECTIONS: Final = (_STRIPE, _REPORTS, _LATER_WORD)
