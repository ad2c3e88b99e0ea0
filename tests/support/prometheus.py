"""A client of a running Prometheus, and the tool that checks its rules."""

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from local_stack.loopback import fetch
from local_stack.monitoring import UNPACKED
from local_stack.monitoring_programs import monitoring_programs

ROOT: Final = Path(__file__).parent.parent.parent


def promtool() -> Path:
    """Find ``promtool``.

    Raises:
        MonitoringUnavailableError: it is not installed; the text says what to install.
    """
    return monitoring_programs(ROOT / UNPACKED).promtool


class PrometheusClient:
    """A client of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, each with ``metric`` and ``value``."""
        answer = json.loads(fetch(f"{self._url}/api/v1/query?{urlencode({'query': expr})}"))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        found = json.loads(fetch(f"{self._url}/api/v1/alerts"))["data"]["alerts"]
        return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}
