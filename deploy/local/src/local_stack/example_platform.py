"""What a platform asks the stack by HTTP: who pays for its users, and what they may do."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, TypeVar
from uuid import UUID

from local_stack.errors import LocalStackError
from local_stack.loopback import fetch

T = TypeVar("T")

_ANSWER_SECONDS = 10.0
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.2


class NotInTimeError(LocalStackError):
    """What a platform waited for did not come."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The backend of an example platform.

    Attributes:
        provisioner: The base URL of customer-provisioner.
        usage_api: The base URL of the usage API.
        key: The key of the HTTP APIs.
        accounts_key: The key that says who pays for a user.
    """

    provisioner: str
    usage_api: str
    key: str = field(repr=False)
    accounts_key: str = field(repr=False)

    def create_organisation(self, account: UUID, name: str) -> None:
        """Have a customer made for an organisation."""
        body = {"account_id": str(account), "name": name}
        self._ask(f"{self.provisioner}/v1/accounts", self.accounts_key, body)

    def assign(self, user: UUID, account: UUID, since: datetime | None = None) -> None:
        """Have an organisation pay for a user, from now on or from a time on."""
        body = {"user_id": str(user), "account_id": str(account)}
        if since is not None:
            body["since"] = since.isoformat()
        self._ask(f"{self.provisioner}/v1/assignments", self.accounts_key, body)

    def customer_of(self, account: UUID) -> str:
        """Wait until a user or an organisation has a customer at Stripe; return its id.

        Raises:
            NotInTimeError: If it has none after a minute.
        """

        def customer() -> str | None:
            try:
                answer = self._ask(f"{self.provisioner}/v1/customers/{account}", self.key)
            except OSError:
                return None  # it has not been heard of yet
            found: str | None = answer.get("stripe_customer_id")
            return found

        if (found := poll(customer, lambda answer: answer is not None)) is None:
            raise NotInTimeError(f"after {_WAIT_SECONDS:.0f} s {account} has no customer")
        return found

    def entitlements(self, user: UUID) -> Mapping[str, Any]:
        """Return the plan of a user, its limits, and what is left of them."""
        found: Mapping[str, Any] = self._ask(f"{self.usage_api}/v1/entitlements/{user}", self.key)
        return found

    def await_plan(self, user: UUID, plan: str) -> Mapping[str, Any]:
        """Wait until a user has a plan, and return the entitlements.

        Raises:
            NotInTimeError: If it is another plan after a minute.
        """
        found = poll(lambda: self.entitlements(user), lambda answer: answer["plan"] == plan)
        if found["plan"] != plan:
            raise NotInTimeError(f"after {_WAIT_SECONDS:.0f} s {user} has not the plan {plan}")
        return found

    def _ask(self, url: str, key: str, body: Mapping[str, str] | None = None) -> Any:
        return json.loads(
            fetch(
                url,
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
                method="GET" if body is None else "POST",
                body=None if body is None else json.dumps(body).encode(),
                seconds=_ANSWER_SECONDS,
            )
        )


def allowed(entitlements: Mapping[str, Any], server_id: str, tool_name: str) -> bool:
    """Decide as the usage API says: nothing denied matches, and no hard limit that is used up."""

    def matches(pattern: Mapping[str, Any]) -> bool:
        named = ((pattern["server_id"], server_id), (pattern["tool_name"], tool_name))
        return all(_like(text, like) for like, text in named)

    used_up = (
        each
        for each in entitlements["limits"]
        if each["hard"] and each["remaining"] is not None and each["remaining"] <= 0
    )
    return not any(map(matches, (*entitlements["denied"], *used_up)))


def _like(text: str, pattern: str) -> bool:
    """Return whether a text is as a pattern says, in which only ``*`` has a meaning."""
    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


def poll(ask: Callable[[], T], holds: Callable[[T], bool], seconds: float = _WAIT_SECONDS) -> T:
    """Ask until ``holds`` is true of the answer, or ``seconds`` are over; return the last one."""
    deadline = time.monotonic() + seconds
    while not holds(found := ask()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return found
