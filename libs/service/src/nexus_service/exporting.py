"""Export of spans: OpenTelemetry's SDK, configured by its standard environment variables."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Final

from nexus_service.settings import SettingsError

EXPORTERS: Final = ("otlp", "console")
PROTOCOL: Final = "http/protobuf"

LAST_EXPORT_WITHIN: Final = 5.0
"""Seconds that shutdown waits for a collector; spans not exported by then are lost."""


def chosen_exporters(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the exporters that the environment names; without any, tracing is off.

    Raises:
        SettingsError: an exporter or a protocol is not supported.
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
    """Create and export spans while the context lasts, if the environment names an exporter."""
    names = chosen_exporters()
    if not names:
        yield
        return
    # Imported here because the import costs 8 MiB and a third of a second.
    from nexus_messaging.tracing import use_tracer_provider
    from nexus_service.tracing_sdk import make_provider

    provider = make_provider(service, names)
    use_tracer_provider(provider)
    try:
        yield
    finally:
        use_tracer_provider(None)
        # In a thread, because the SDK's shutdown has no time limit if the collector is silent.
        last = Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(LAST_EXPORT_WITHIN)
