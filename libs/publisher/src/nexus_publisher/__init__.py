"""Publishes tool runs and users to Nexus metering; its host never waits or fails because of it."""

from nexus_publisher.counters import Stats
from nexus_publisher.publisher import Publisher
from nexus_publisher.results import Dropped, DropReason, InMemory, Result, Stored

__all__ = ["DropReason", "Dropped", "InMemory", "Publisher", "Result", "Stats", "Stored"]
