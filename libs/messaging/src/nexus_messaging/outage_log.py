"""Logs that the broker does not confirm what a relay publishes: when it begins and when it ends."""

from collections.abc import Callable, Sequence

from nexus_messaging.errors import PublishError

Begin = Callable[[Sequence[PublishError]], None]
"""Logs the errors of the first round that failed."""

End = Callable[[int], None]
"""Logs how many publishes had failed since then."""


class OutageLog:
    """Calls ``begin`` after the first round that fails, ``end`` after the next that succeeds."""

    def __init__(self, begin: Begin, end: End) -> None:
        self._begin = begin
        self._end = end
        self._failed = 0

    def round(self, results: Sequence[PublishError | None]) -> None:
        """Note one round's publishes: for each its error, or ``None`` if it was confirmed."""
        errors = [error for error in results if error is not None]
        if errors and not self._failed:
            self._begin(errors)
        elif results and not errors and self._failed:
            self._end(self._failed)
            self._failed = 0
        self._failed += len(errors)
