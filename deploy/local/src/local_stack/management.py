"""The broker's management API, as far as one must ask it whether the broker is there."""

import base64
import json
from collections.abc import Mapping
from urllib.parse import quote

from local_stack.loopback import fetch
from local_stack.urls import Login


def broker_version(url: str, login: Login) -> str:
    """Ask for the broker's version, such as ``3.10.8``.

    Raises:
        OSError: If the API does not answer, or refuses the login.
    """
    return str(_ask(url, login, "/api/overview")["rabbitmq_version"])


def listens_for_amqp(url: str, login: Login, port: int) -> bool:
    """Tell whether the AMQP listener on ``port`` is up; the API itself is up earlier."""
    try:
        answer = _ask(url, login, f"/api/health/checks/port-listener/{quote(str(port))}")
    except (OSError, ValueError):
        return False
    return answer.get("status") == "ok"


def _ask(url: str, login: Login, path: str) -> Mapping[str, object]:
    credentials = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    document: Mapping[str, object] = json.loads(
        fetch(url + path, headers={"Authorization": f"Basic {credentials}"})
    )
    return document
