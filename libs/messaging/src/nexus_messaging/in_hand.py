"""What one channel has delivered and nobody has acked yet: how many bytes, and how it is acked."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ack:
    """One frame: it acks ``tag``, and with ``multiple`` everything delivered before it too."""

    tag: int
    multiple: bool


class InHand:
    """The deliveries of one channel by their tags, which rise from one delivery to the next.

    ``bytes`` is the size of those that are not settled: a settled one may still wait for its ack.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._settled: set[int] = set()
        self.bytes = 0

    def __len__(self) -> int:
        """Return the number of deliveries that are not acked."""
        return len(self._sizes) + len(self._settled)

    def add(self, tag: int, size: int) -> None:
        """Take a delivery of ``size`` bytes in hand."""
        self._sizes[tag] = size
        self.bytes += size

    def settle(self, tags: Iterable[int]) -> None:
        """Note that ``tags`` may be acked; one that is not in hand is ignored."""
        for tag in tags:
            size = self._sizes.pop(tag, None)
            if size is not None:
                self.bytes -= size
                self._settled.add(tag)

    def acks(self) -> list[Ack]:
        """Return the fewest frames that ack what is settled, and nothing besides; then forget it.

        ``multiple`` reaches only below the oldest delivery that is not settled.
        """
        settled = sorted(self._settled)
        self._settled.clear()
        oldest = next(iter(self._sizes), None)
        together = [tag for tag in settled if oldest is None or tag < oldest]
        alone = [Ack(tag, multiple=False) for tag in settled[len(together) :]]
        return [Ack(together[-1], multiple=True), *alone] if together else alone
