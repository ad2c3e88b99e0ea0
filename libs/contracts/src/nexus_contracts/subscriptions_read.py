"""`subscriptions.read`: every subscription at Stripe was read."""

from typing import ClassVar

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import Moment


class SubscriptionsReadV1(EventData):
    """A complete reading of all subscriptions; each of them was announced as it was read.

    An account whose customer was there when the reading began, and of which no subscription is
    known after it, has none.
    """

    TYPE: ClassVar[str] = "subscriptions.read.v1"

    began_at: Moment
    """When the reading began. It says nothing about what was made later."""
    ended_at: Moment
    """When the last of them had been read."""


SubscriptionsRead = SubscriptionsReadV1
