"""The unacknowledged deliveries of one channel: their size, and the acks that settle them."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ack:
    """A ``basic.ack`` frame for ``tag``; ``multiple`` includes all earlier deliveries."""

    tag: int
    multiple: bool


class UnackedDeliveries:
    """The deliveries of one channel, by delivery tag in ascending order.

    ``bytes`` is the size of the unsettled ones. A settled one may still wait for its ack.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._settled: set[int] = set()
        self.bytes = 0

    def __len__(self) -> int:
        """Return the number of deliveries that are not acked."""
        return len(self._sizes) + len(self._settled)

    def add(self, tag: int, size: int) -> None:
        """Add an unsettled delivery of ``size`` bytes."""
        self._sizes[tag] = size
        self.bytes += size

    def forget(self, tag: int) -> None:
        """Remove a delivery that was rejected: it is not acked."""
        self.bytes -= self._sizes.pop(tag, 0)

    def settle(self, tags: Iterable[int]) -> None:
        """Mark ``tags`` as ready to be acked; unknown tags are ignored."""
        for tag in tags:
            size = self._sizes.pop(tag, None)
            if size is not None:
                self.bytes -= size
                self._settled.add(tag)

    def acks(self) -> list[Ack]:
        """Return the fewest frames that ack exactly the settled deliveries, and remove those.

        ``multiple`` is used only below the oldest unsettled delivery.
        """
        settled = sorted(self._settled)
        self._settled.clear()
        oldest = next(iter(self._sizes), None)
        together = [tag for tag in settled if oldest is None or tag < oldest]
        alone = [Ack(tag, multiple=False) for tag in settled[len(together) :]]
        return [Ack(together[-1], multiple=True), *alone] if together else alone
