"""What this service announces: customers, assignments, subscriptions and readings of all."""

from typing import Any

from customer_provisioner import assignments, profile, readings, subscriptions
from customer_provisioner.assignments import Assignment
from customer_provisioner.profile import Profile
from customer_provisioner.readings import Reading
from customer_provisioner.relay import Announced
from customer_provisioner.storage.assignments import AssignmentStore
from customer_provisioner.storage.reader import ProfileReader
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.storage.sweeps import SweepStore
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.subscriptions import Subscription
from nexus_database import Database


def announced_customers(database: Database) -> Announced[Profile]:
    """Return how customers are announced, users' and organisations'."""
    reader = ProfileReader(database)
    return Announced(
        event="customer.provisioned",
        announcement=profile.announcement,
        parent=lambda each: each.traceparent,
        unannounced=reader.unannounced,
        mark=ProfileWriter(database).mark_announced,
        since=reader.provisioned_since,
    )


def announced_assignments(database: Database) -> Announced[Assignment]:
    """Return how it is announced who pays for whom."""
    store = AssignmentStore(database)
    return Announced(
        event="user.assigned",
        announcement=assignments.announcement,
        parent=_untraced,
        unannounced=store.unannounced,
        mark=store.mark_announced,
        since=store.announced_since,
    )


def announced_subscriptions(database: Database) -> Announced[Subscription]:
    """Return how subscriptions are announced."""
    store = SubscriptionStore(database)
    return Announced(
        event="subscription.changed",
        announcement=subscriptions.announcement,
        parent=_untraced,
        unannounced=store.unannounced,
        mark=store.mark_announced,
        since=store.announced_since,
    )


def announced_readings(database: Database) -> Announced[Reading]:
    """Return how it is announced that all subscriptions were read, and each of them announced."""
    store = SweepStore(database)
    return Announced(
        event="subscriptions.read",
        announcement=readings.announcement,
        parent=_untraced,
        unannounced=store.unannounced,
        mark=store.mark_announced,
        since=store.announced_since,
    )


def _untraced(_fact: Any) -> None:
    """Return no trace context: none is stored with these facts."""
