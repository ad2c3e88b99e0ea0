"""Writes what is made from the code: pages and AsyncAPI, Prometheus' queue rules, dashboards."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import queue_rules
from asyncapi import asyncapi_page
from event_page import events_page
from log_events import log_page
from openapi import openapi_page
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from usage_openapi import usage_openapi_page

from customer_provisioner.handlers import router as provisioner_router
from customer_provisioner.settings import AdminSettings, BackfillSettings
from customer_provisioner.settings import Settings as ProvisionerSettings
from metering_dashboards.__main__ import dashboards
from model import transitions, versions
from nexus_broker_admin.inspection import TopologySettings
from nexus_outbox.settings import Settings as OutboxSettings
from nexus_service.settings import ProcessSettings, ServiceSettings
from stripe_reporter.handlers import router as reporter_router
from stripe_reporter.settings import Settings as ReporterSettings
from stripe_reporter.stripe.responses import markdown
from usage_ingest.events_api.settings import Settings as EventsApiSettings
from usage_ingest.handlers import router as ingest_router
from usage_ingest.settings import Settings as IngestSettings
from usage_ingest.usage_api.settings import Settings as UsageApiSettings

ROOT: Final = Path(__file__).parent.parent
SERVICES: Final[dict[str, type[BaseModel]]] = {
    "usage-ingest": IngestSettings,
    "stripe-reporter": ReporterSettings,
    "customer-provisioner": ProvisionerSettings,
    "events-api": EventsApiSettings,
    "usage-api": UsageApiSettings,
    "nexus-outbox": OutboxSettings,
}

ROUTERS: Final = {
    "usage-ingest": ingest_router,
    "stripe-reporter": reporter_router,
    "customer-provisioner": provisioner_router,
}

SETTINGS: Final = """\
# Settings

Environment variables. Each may also be given as `NAME_FILE`, naming a file that holds the value.
White space, a byte order mark and one pair of quotes around a value are dropped; a value with line
breaks or other unprintable characters within is refused. `<service> check` names everything that is
wrong with them at once. This page is made from the code (`make docs`).
"""

TRACES: Final = """\
## Traces, every service

OpenTelemetry's standard variables, read as its SDK reads them, so there is no `NAME_FILE`. What is
to be seen then: [operations](operations.md#traces). Others, such as `OTEL_BSP_*` and `OTEL_SPAN_*`,
are in [OpenTelemetry's documentation](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).

| variable | default | |
|---|---|---|
"""

TRACE_VARIABLES: Final = (
    (
        "`OTEL_TRACES_EXPORTER`",
        "`none`",
        "`otlp`, `console` (a line each, beside the log) or `none`: no spans, and nothing stored.",
    ),
    (
        "`OTEL_EXPORTER_OTLP_ENDPOINT`",
        "`http://localhost:4318`",
        "The collector, where spans go to `/v1/traces`; HTTP with protobuf is the only protocol.",
    ),
    (
        "`OTEL_EXPORTER_OTLP_HEADERS`",
        "empty",
        "`name=value`, comma-separated, such as a key of the collector's. Secret.",
    ),
    ("`OTEL_SERVICE_NAME`", "the service's name", "What the service is called in traces."),
    (
        "`OTEL_RESOURCE_ATTRIBUTES`",
        "empty",
        "`name=value`, comma-separated, such as `deployment.environment.name=production`.",
    ),
    (
        "`OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`",
        "`parentbased_always_on`",
        "Which traces are recorded.",
    ),
    ("`OTEL_SDK_DISABLED`", "`false`", "`true` switches all of it off."),
)

ANSWERS: Final = """\
# What Stripe's answers mean

The table that stripe-reporter acts by, read from the top: the first row that fits counts. This page
is made from the code (`make docs`). "Waits" spends no budget; in the last tier it repeats. A cause
in the last column opens the circuit: all reports wait until a probe finds the cause gone.

An answer is Stripe's if it carries Stripe's `Request-Id` and, being no success, Stripe's error
object; a 401 for an unknown key has `WWW-Authenticate: Bearer realm="Stripe"` instead of the id.
Once a call's outcome was unknown, a refusal says nothing about it: instead of `usage.rejected`
there is a dead letter `outcome_unknown`.

These are Stripe's first words. It may reject later what it has accepted, or not count it:
[Stripe's later word](operations.md#stripes-later-word).
"""

STATES: Final = """\
# States and moves

Every state that an event, a report, a call, a user and a change of a user can be in, and every move
between them. This page is made (`make docs`) from the table that tests hold all moves against, on
real databases: `tests/model` while it drives ledger, claims, relay, journal and outcomes at random,
and customer-provisioner's tests with messages in any order. A move is one transaction's.

Not drawn is `usage-ingest adopt`, which runs while the service stands still after a backup was
put back: it brings events and reports to where the journal says they had been before. In the
journal's table `rejected_later` is a column of its own, Stripe's code: `state` stays `accepted`.
"""


ARRIVALS: Final = """\
## Versions of a tool run

What becomes of a message by what the ledger has of its id (`usage_events`, and its details in
`usage_details`). Two messages are of the same run if they say the same in the fields that version 1
has, `metadata` aside, and their times are of the same millisecond. The details are the fields that
version 2 adds: they are kept once, the first that come, and change nothing that is billed. A
version 2 whose details are all null has details, too. It does not matter whether messages come in
one batch or in several, or which process records them: the order of commits counts.
"""


def settings_page() -> Iterator[str]:
    """Yield the lines of the settings reference."""
    yield SETTINGS
    process = frozenset(ProcessSettings.model_fields)
    service = frozenset(ServiceSettings.model_fields)
    yield from _table("Every process", ProcessSettings, frozenset())
    yield from _table(
        "usage-ingest, stripe-reporter and customer-provisioner", ServiceSettings, process
    )
    for name, kind in SERVICES.items():
        yield from _table(name, kind, service if issubclass(kind, ServiceSettings) else process)
    yield from _table("`customer-provisioner backfill`", BackfillSettings, service)
    yield from _table("`customer-provisioner plans ensure`", AdminSettings, frozenset())
    yield TRACES.rstrip()
    for variable, default, meaning in TRACE_VARIABLES:
        yield f"| {variable} | {default} | {meaning} |"
    yield from _table(
        "`check` of every service, and `usage-ingest status`",
        TopologySettings,
        frozenset(ServiceSettings.model_fields),
    )


def _table(name: str, kind: type[BaseModel], known: frozenset[str]) -> Iterator[str]:
    yield f"## {name}\n"
    yield "| variable | default | |"
    yield "|---|---|---|"
    for field, info in kind.model_fields.items():
        if field not in known:
            yield f"| `{field.upper()}` | {_default(info)} | {_meaning(kind, field, info)} |"
    yield ""


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    if info.default in ("", None, ()):
        return "empty"
    value = ", ".join(info.default) if isinstance(info.default, tuple) else info.default
    return f"`{value}`"


def _meaning(kind: type[BaseModel], field: str, info: FieldInfo) -> str:
    if info.description is None:
        raise LookupError(f"{kind.__module__}.{kind.__qualname__}.{field} has no docstring")
    kinds = (info.annotation, *get_args(info.annotation))
    is_secret = any(SecretStr in (kind, *get_args(kind)) for kind in kinds)
    return " ".join(info.description.split()) + (" Secret." if is_secret else "")


def answers_page() -> Iterator[str]:
    """Yield the lines of the table of answers."""
    yield ANSWERS
    yield from markdown()


def states_page() -> Iterator[str]:
    """Yield the lines of the state diagrams."""
    yield STATES
    yield from transitions.markdown()
    yield ARRIVALS
    yield from versions.markdown()


def generated() -> Iterator[tuple[str, str]]:
    """Yield each generated file: its path in the repository, and its text."""
    for name, lines in {
        "settings.md": settings_page(),
        "stripe-answers.md": answers_page(),
        "logs.md": log_page(),
        "states.md": states_page(),
        "events.md": events_page(ROUTERS),
        "asyncapi.json": asyncapi_page(ROUTERS),
        "openapi.json": openapi_page(),
        "usage-openapi.json": usage_openapi_page(),
    }.items():
        yield f"docs/{name}", "\n".join(lines).rstrip() + "\n"
    yield "deploy/prometheus/rules/queues.yml", queue_rules.rules_file()
    yield "deploy/prometheus/rules-tests/queues.yml", queue_rules.tests_file()
    yield "deploy/prometheus/rules-tests/retry-tiers.yml", queue_rules.tier_tests_file()
    for name, text in dashboards():
        yield f"deploy/grafana/dashboards/{name}", text


def main() -> int:
    """Write the files, or with ``--check`` compare them; return 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    stale = []
    for name, text in generated():
        file = ROOT / name
        if check and (not file.exists() or file.read_text(encoding="utf-8") != text):
            stale.append(name)
        elif not check:
            file.write_text(text, encoding="utf-8")
    if stale:
        print(f"not as the code says: {', '.join(stale)}; run make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
