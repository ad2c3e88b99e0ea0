"""customer-provisioner: users, their customers, and the usage that waits for them."""

from typing import Final

from metering_dashboards.panels import Panel, Query, Section, quantiles, rates

NAME: Final = "customers"
TITLE: Final = "Metering: customers"
DESCRIPTION: Final = "Users on their way to a Stripe customer, and the usage that waits for it."

_USERS = Section(
    "Users",
    (
        Panel(
            "Users without a customer",
            "provisioning is under way; refused needs an operator.",
            "short",
            (Query("max by (state) (customer_provisioner_users)", "{{state}}"),),
            "userswithoutcustomer",
        ),
        Panel(
            "Longest wait",
            "Time since the oldest user without a customer, refused ones excluded, was created.",
            "s",
            (Query("max(customer_provisioner_oldest_wait_seconds)", "wait"),),
            "userswithoutcustomer",
        ),
        Panel(
            "Usage without a customer",
            "Events in the ledger whose user has no customer yet.",
            "short",
            (Query('max by (state) (usage_ingest_events_in_state{state="waiting"})', "{{state}}"),),
            "usagewithoutcustomer",
        ),
        Panel(
            "Oldest usage without a customer",
            "At 35 days it can no longer be billed.",
            "s",
            (
                Query(
                    'max by (state) (usage_ingest_oldest_event_seconds{state="waiting"})',
                    "{{state}}",
                ),
            ),
            "usagewithoutcustomer",
        ),
    ),
)

_STRIPE = Section(
    "Stripe",
    (
        Panel(
            "Calls by operation and answer",
            "never_sent, lost, unreadable, server_error and unavailable are an outage.",
            "ops",
            (rates("customer_provisioner_stripe_calls_total", "call, answer"),),
            "stripeauthfailing",
        ),
        Panel(
            "Duration of a call",
            "How long Stripe takes to answer, by operation.",
            "s",
            quantiles("customer_provisioner_stripe_call_seconds", "call", of=(0.99,)),
            "stripe-outage",
        ),
        Panel(
            "Customers stored",
            "created; adopted after a lost answer; linked where the user had one at Stripe before.",
            "ops",
            (rates("customer_provisioner_customers_total", "how"),),
            "userswithoutcustomer",
        ),
        Panel(
            "Announcements",
            "Customers, assignments and subscriptions published to other services.",
            "short",
            (
                rates("customer_provisioner_announcements_total", "event"),
                Query("max(customer_provisioner_unannounced_customers)", "not announced yet"),
            ),
            "userswithoutcustomer",
        ),
        Panel(
            "Changed addresses and names",
            "Sent to Stripe, refused by it, or outdated by a later change.",
            "ops",
            (rates("customer_provisioner_changes_total", "outcome"),),
            "changeswaiting",
        ),
        Panel(
            "Longest wait of a change",
            "Time since the oldest changed address or name was published that Stripe lacks.",
            "s",
            (Query("max(customer_provisioner_oldest_change_wait_seconds)", "wait"),),
            "changeswaiting",
        ),
        Panel(
            "Second customers of a user",
            "Found beside the customer of a user, since the start. Check each at Stripe.",
            "short",
            (Query("sum(customer_provisioner_surplus_customers_total)", "found"),),
            "userswithoutcustomer",
        ),
        Panel(
            "Dead letters and retries",
            "Of user.created and user.updated.",
            "ops",
            (
                rates("customer_provisioner_messages_dead_lettered_total", "reason"),
                rates("customer_provisioner_messages_retried_total", "tier"),
            ),
            "deadletterspresent",
        ),
    ),
)

_SUBSCRIPTIONS = Section(
    "Subscriptions",
    (
        Panel(
            "Webhooks",
            "published is a message in our queue; Stripe repeats what is not answered so.",
            "ops",
            (rates("customer_provisioner_stripe_webhooks_total", "outcome"),),
            "webhookslost",
        ),
        Panel(
            "Fetches of subscriptions",
            "stored, or overtaken by another fetch and repeated.",
            "ops",
            (rates("customer_provisioner_subscription_fetches_total", "outcome"),),
            "webhookslost",
        ),
        Panel(
            "Lost webhooks",
            "Subscriptions that the nightly sweep found to differ, since the start.",
            "short",
            (Query("sum(customer_provisioner_lost_webhooks_total)", "lost"),),
            "webhookslost",
        ),
        Panel(
            "Subscriptions without account or plan",
            "Running ones that an operator must look at, and accounts with a deleted customer.",
            "short",
            (
                Query("max by (what) (customer_provisioner_subscriptions_without)", "{{what}}"),
                Query("max(customer_provisioner_deleted_customers)", "customer deleted"),
            ),
            "subscriptionswithoutaccount",
        ),
    ),
)

SECTIONS: Final = (_USERS, _STRIPE, _SUBSCRIPTIONS)
