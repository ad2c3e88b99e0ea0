"""Ids of events: UUIDs of version 7, which sort by the time at which they were made."""

import os
import time
from uuid import UUID


def new_id() -> UUID:
    """Return a new UUID version 7 (https://www.rfc-editor.org/rfc/rfc9562#section-5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # the version
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant
    return UUID(int=value)
