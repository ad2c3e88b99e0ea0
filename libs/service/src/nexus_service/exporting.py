"""Where spans go: OpenTelemetry's SDK, set up from its own standard environment variables."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Final

from nexus_messaging.tracing import trace_with
from nexus_service.settings import SettingsError

EXPORTERS: Final = ("otlp", "console")
PROTOCOL: Final = "http/protobuf"

LAST_EXPORT_WITHIN: Final = 5.0
"""Seconds that ending waits for a collector; what it has not taken by then is lost."""


def chosen_exporters(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the exporters that the environment asks for; none means that tracing is off.

    Raises:
        SettingsError: an exporter or a protocol that we don't have.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    listed = environment.get("OTEL_TRACES_EXPORTER", "").split(",")
    names = tuple(name for each in listed if (name := each.strip()) not in ("", "none"))
    if not set(names) <= set(EXPORTERS):
        known = ", ".join(EXPORTERS)
        raise SettingsError(f"OTEL_TRACES_EXPORTER: only {known} and none are known here")
    for variable in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        if environment.get(variable) not in (None, "", PROTOCOL):
            raise SettingsError(f"{variable}: only {PROTOCOL} is known here")
    return names


@contextmanager
def exporting(service: str) -> Iterator[None]:
    """Make and export spans while the context lasts, if the environment asks for it."""
    names = chosen_exporters()
    if not names:
        yield
        return
    # Imported only here: a process without traces is spared 8 MiB and a third of a second.
    from nexus_service.tracing_sdk import make_provider  # noqa: PLC0415

    provider = make_provider(service, names)
    trace_with(provider)
    try:
        yield
    finally:
        trace_with(None)
        # A thread of its own: left to itself, shutting down waits for a silent collector for long.
        last = Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(LAST_EXPORT_WITHIN)
