"""AMQP's frames on the wire: a kind, a channel and a size, then the payload and an end byte.

https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, sections 2.3.5 and 4.2.
"""

import struct
from typing import Final

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
"""The kinds of frames."""

FRAME_HEAD: Final = struct.Struct(">BHI")
"""The kind, the channel, and the bytes of the payload."""

FRAME_END: Final = 0xCE

_END: Final = bytes([FRAME_END])


def frame(kind: int, channel: int, payload: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the parts of a frame; they are not joined, so that a body is copied only once."""
    return FRAME_HEAD.pack(kind, channel, len(payload)), payload, _END
