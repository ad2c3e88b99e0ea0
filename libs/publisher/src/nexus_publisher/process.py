"""What publishers do when their process forks, ends, or gets SIGTERM."""

import atexit
import os
import signal
import threading
from types import FrameType
from typing import Final, Protocol


class Watched(Protocol):
    """A publisher, as the end and the fork of its process concern it."""

    def before_fork(self) -> None:
        """Hold still, so that a child inherits nothing half done."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew, with a thread and connections of the child's own."""

    def drain(self) -> None:
        """Send or store what is in memory, within the publisher's deadline."""

    def close(self) -> None:
        """Drain and end."""


_watched: Final[list[Watched]] = []


def watch(publisher: Watched, *, handle_sigterm: bool) -> None:
    """Call ``publisher`` at a fork, at exit and, if nobody else handles it, at SIGTERM.

    A handler of the host stays in place. What it does ends in the interpreter's exit, which drains.
    """
    _watched.append(publisher)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if handle_sigterm and in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _drain_and_die)


def forget(publisher: Watched) -> None:
    """Undo ``watch``."""
    if publisher in _watched:
        _watched.remove(publisher)


def _drain_and_die(number: int, _frame: FrameType | None) -> None:
    """Drain, then end as the process would have ended without this handler."""
    for publisher in [*_watched]:
        publisher.drain()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _close_all() -> None:
    for publisher in [*_watched]:
        publisher.close()


def _before_fork() -> None:
    for publisher in [*_watched]:
        publisher.before_fork()


def _after_fork_in_parent() -> None:
    for publisher in [*_watched]:
        publisher.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for publisher in [*_watched]:
        publisher.after_fork_in_child()


atexit.register(_close_all)
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
