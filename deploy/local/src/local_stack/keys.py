"""The keys and passwords of one stack: new each time, and written as settings have them."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from local_stack.catalogue import BROKER_USERS

_ALL_USES = "*|entitlements.read|usage.read"
# Who says who pays for a user has a right of its own, which no key of tool runs may have.
_ASSIGNING = "user.created|user.assigned"


@dataclass(frozen=True, slots=True)
class StackKeys:
    """What the parts of one stack know each other by.

    Attributes:
        stripe: The key the local Stripe accepts.
        webhooks: What the local Stripe signs its events with.
        api: The key of the HTTP APIs.
        accounts: A further key of customer-provisioner, which says who pays for a user.
        broker: The passwords of the broker's users.
    """

    stripe: str = field(repr=False)
    webhooks: str = field(repr=False)
    api: str = field(repr=False)
    accounts: str = field(repr=False)
    broker: Mapping[str, str] = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Make new ones."""
        return cls(
            stripe=f"sk_test_{secrets.token_hex(16)}",
            webhooks=f"whsec_{secrets.token_hex(16)}",
            api=secrets.token_urlsafe(32),
            accounts=secrets.token_urlsafe(32),
            broker={user: secrets.token_urlsafe(24) for user in BROKER_USERS},
        )

    @property
    def for_apis(self) -> dict[str, str]:
        """The setting of the events and the usage API."""
        return {"API_KEYS": self._api_entry}

    @property
    def for_accounts(self) -> dict[str, str]:
        """The setting of customer-provisioner."""
        accounts = _entry("accounts", self.accounts, _ASSIGNING)
        return {"API_KEYS": f"{self._api_entry},{accounts}"}

    @property
    def _api_entry(self) -> str:
        return _entry("local", self.api, _ALL_USES)


def _entry(name: str, key: str, types: str) -> str:
    """Write a key as ``API_KEYS`` has it: by its digest, with all sources and some types."""
    return f"{name}:{sha256(key.encode()).hexdigest()}:*:{types}"
