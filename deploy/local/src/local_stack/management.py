"""The broker's management API."""

import base64
import json
from typing import Any
from urllib.parse import quote

from local_stack.loopback import fetch
from local_stack.urls import Login

_ANSWER_SECONDS = 5.0


def ask(
    url: str,
    login: Login,
    path: str,
    *,
    method: str = "GET",
    body: object = None,
    seconds: float = _ANSWER_SECONDS,
) -> Any:
    """Ask the management API; return the document it answers with, ``None`` for an empty answer.

    Args:
        url: Its base URL, without credentials.
        login: The user to ask as.
        path: The path below ``/api/``, each part of it quoted.
        method: The HTTP method.
        body: What is sent, as JSON; nothing by default.
        seconds: How long the answer may take.

    Raises:
        OSError: If the API does not answer, or refuses.
    """
    credentials = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    answer = fetch(
        f"{url}/api/{path}", headers=headers, method=method, body=content, seconds=seconds
    )
    return json.loads(answer) if answer else None


def broker_version(url: str, login: Login) -> str:
    """Ask for the broker's version, such as ``3.10.8``.

    Raises:
        OSError: If the API does not answer, or refuses the login.
    """
    return str(ask(url, login, "overview")["rabbitmq_version"])


def listens_for_amqp(url: str, login: Login, port: int) -> bool:
    """Return whether the AMQP listener on ``port`` is up; the API itself is up earlier."""
    try:
        answer = ask(url, login, f"health/checks/port-listener/{port}")
    except (OSError, ValueError):
        return False
    return bool(answer.get("status") == "ok")


def queue_names(url: str, login: Login, vhost: str) -> tuple[str, ...]:
    """Ask for the names of a vhost's queues, in alphabetical order.

    Raises:
        OSError: If the API does not answer, or refuses the login.
    """
    queues = ask(url, login, f"queues/{quote(vhost, safe='')}?columns=name")
    return tuple(sorted(queue["name"] for queue in queues))
