"""A subscriber of the notices, such as the sender of mails that a limit is nearly reached."""

import json
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from local_stack.catalogue import VHOST
from local_stack.example_platform import poll
from local_stack.management import ask
from metering_demo.endpoints import Endpoints

QUEUE: Final = "notices.demo"
EXCHANGE: Final = "notices"
THRESHOLDS: Final = "usage.threshold_reached.*"


@dataclass(frozen=True, slots=True)
class Notices:
    """A queue of its own, which gets each threshold that is reached."""

    endpoints: Endpoints

    @classmethod
    def subscribe(cls, endpoints: Endpoints) -> Self:
        """Make the queue and bind it, as an administrator does for each subscriber."""
        notices = cls(endpoints)
        notices._ask(f"queues/{VHOST}/{QUEUE}", "PUT", {"durable": True})
        binding = {"routing_key": THRESHOLDS}
        notices._ask(f"bindings/{VHOST}/e/{EXCHANGE}/q/{QUEUE}", "POST", binding)
        return notices

    def shares(self, account: UUID, number: int, patience: float) -> list[int]:
        """Wait for ``number`` notices about an account; return their shares of a limit, sorted."""
        taken: set[int] = set()

        def take() -> list[int]:
            wanted = {"count": 100, "ackmode": "ack_requeue_false", "encoding": "auto"}
            for message in self._ask(f"queues/{VHOST}/{QUEUE}/get", "POST", wanted):
                data = json.loads(message["payload"])["data"]
                if data["account_id"] == str(account):
                    taken.add(data["share_percent"])
            return sorted(taken)

        return poll(take, lambda found: len(found) >= number, patience)

    def _ask(self, path: str, method: str, body: object) -> list[dict[str, str]]:
        at = self.endpoints
        answer: list[dict[str, str]] | None = ask(
            at.management, at.admin, path, method=method, body=body
        )
        return answer or []
