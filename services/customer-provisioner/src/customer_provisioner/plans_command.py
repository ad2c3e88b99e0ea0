"""The operators' command about plans: what the file has, made at Stripe."""

import argparse

from prometheus_client import CollectorRegistry

from customer_provisioner.catalogue import Action, CatalogueChange
from customer_provisioner.circuit import StripeKeyRefusedError
from customer_provisioner.ensuring import ensure
from customer_provisioner.metrics import Metrics
from customer_provisioner.opening import read_plans
from customer_provisioner.profile import SOURCE
from customer_provisioner.settings import AdminSettings
from customer_provisioner.stripe.calls import StripeCalls
from customer_provisioner.stripe.catalogue import CatalogueApi
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import Finding, Tone, show_error, show_findings, show_json, show_line
from nexus_service.settings import SettingsError


async def ensure_plans(settings: AdminSettings, parsed: argparse.Namespace) -> int:
    """Make at Stripe what the plan file has; fail if something there differs from it."""
    plans = read_plans(settings)
    if plans is None:
        raise SettingsError("PLANS_FILE: not set (nor PLANS_FILE_FILE)")
    key = settings.stripe_admin_key.get_secret_value()
    base, metrics = settings.stripe_api_base, Metrics(CollectorRegistry())
    async with StripeCalls(key, base, metrics) as calls:
        try:
            changes = await ensure(plans, CatalogueApi(calls), execute=parsed.execute)
        except StripeKeyRefusedError as error:
            show_error(SOURCE, f"Stripe refuses the key in STRIPE_ADMIN_KEY ({error})")
            return FAILED
    if parsed.json:
        for change in changes:
            show_json(_facts(change, executed=parsed.execute))
    else:
        show_findings(map(_finding, changes))
        show_line(_summary(changes, executed=parsed.execute, live=settings.live))
    return FAILED if any(change.action is Action.DIFFERS for change in changes) else SUCCESS


def _facts(change: CatalogueChange, *, executed: bool) -> dict[str, object]:
    return {
        "kind": change.kind,
        "name": change.name,
        "action": change.action.value,
        "detail": change.detail,
        "done": change.due and executed,
    }


def _finding(change: CatalogueChange) -> Finding:
    text = f"{change.action.value}: {change.detail}" if change.detail else change.action.value
    tone = Tone.NOTE if change.due else Tone.GOOD
    if change.action is Action.DIFFERS:
        tone = Tone.BAD
    return Finding(f"{change.kind} {change.name}", text, tone)


def _summary(changes: list[CatalogueChange], *, executed: bool, live: bool) -> str:
    due = sum(change.due for change in changes)
    mode = "live" if live else "test"
    if not due:
        return f"nothing to do ({mode} mode)"
    number = "1 change" if due == 1 else f"{due} changes"
    if executed:
        return f"{number} made ({mode} mode)"
    return f"{number} to make ({mode} mode); nothing was made: add --execute"
