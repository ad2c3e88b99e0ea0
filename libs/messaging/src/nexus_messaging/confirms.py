"""Which publications the broker has confirmed, refused or returned: the bookkeeping of a channel.

RabbitMQ numbers the publications of a channel from 1. It confirms them in any order, and may
confirm all up to a number at once. A publication that it can't route it returns without the number,
in the order of publishing, and then confirms it as well.
"""

from asyncio import Future
from collections import OrderedDict

from nexus_messaging.errors import PublishError, UnroutableError


class Answers:
    """The broker's answers to publications that are sent together, by their places.

    ``complete`` is done when none is missing. ``errors`` holds the error of each publication, or
    ``None``, which counts only where the answer is not ``missing``.
    """

    def __init__(self, number: int, complete: "Future[None]") -> None:
        self.errors: list[PublishError | None] = [None] * number
        self.missing = set(range(number))
        self.complete = complete

    def answer(self, place: int) -> None:
        """Note that the broker, or the client itself, is done with a publication."""
        self.missing.discard(place)
        if not self.missing and not self.complete.done():
            self.complete.set_result(None)


class UnmatchedReturnError(Exception):
    """The broker returned what was not published: a confirm may now stand for a lost message."""


class Confirms:
    """Keeps the publications that wait for a confirm, in the order of publishing.

    Those that nobody waits for any longer stay until their confirm: they may still be returned.
    """

    def __init__(self) -> None:
        self._last = 0
        self._last_returned = 0
        self._waiting: OrderedDict[int, tuple[Answers, int, int]] = OrderedDict()

    def expect(self, answers: Answers, place: int, mark: int) -> None:
        """Number the next publication; ``mark`` is its ``Publication.mark``."""
        self._last += 1
        self._waiting[self._last] = (answers, place, mark)

    def confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """Answer publication ``tag``, and all before it if ``multiple``."""
        while multiple and self._waiting and (first := next(iter(self._waiting))) < tag:
            self._answer(first, refused=refused)
        if tag in self._waiting:
            self._answer(tag, refused=refused)

    def _answer(self, tag: int, *, refused: bool) -> None:
        answers, place, _ = self._waiting.pop(tag)
        if refused:
            answers.errors[place] = PublishError("refused by the broker")
        answers.answer(place)

    def returned(self, mark: int, error: UnroutableError) -> None:
        """Give ``error`` to the publication with that ``mark`` whose turn it is.

        Raises:
            UnmatchedReturnError: there is none after the one returned last.
        """
        for tag, (answers, place, its_mark) in self._waiting.items():
            if tag > self._last_returned and its_mark == mark:
                answers.errors[place] = error
                self._last_returned = tag
                return
        raise UnmatchedReturnError
