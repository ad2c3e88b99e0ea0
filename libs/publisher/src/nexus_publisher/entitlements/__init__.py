"""Asks, before a tool runs, whether its user's plan lets it run; needs the extra ``http``."""

from nexus_publisher.entitlements.client import Entitlements
from nexus_publisher.entitlements.counters import EntitlementStats, Source
from nexus_publisher.entitlements.decision import Decision, Why

__all__ = ["Decision", "EntitlementStats", "Entitlements", "Source", "Why"]
