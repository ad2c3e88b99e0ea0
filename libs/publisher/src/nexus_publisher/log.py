"""The package's lines in the host's log."""

import logging
from contextlib import suppress

_logger = logging.getLogger("nexus_publisher")


def log(level: int, text: str, *values: object) -> None:
    """Log a line; a handler of the host that raises costs the line, and no event."""
    with suppress(Exception):
        _logger.log(level, text, *values)
