"""Why a service ended before it ran."""


class StartError(Exception):
    """The service can't start; the text says what to do."""


class StoppedError(Exception):
    """The service was stopped before its start was complete."""
