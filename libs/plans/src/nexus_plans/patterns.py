"""Patterns of servers and tools, in which ``*`` stands for any text. Pure."""

import re
from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple

from pydantic import Field

from nexus_contracts.fields import Text

ANY: Final = "*"

TextPattern = Annotated[
    Text,
    Field(
        description="`*` stands for any text, also for none; every other character for itself.",
        examples=["sql-*"],
    ),
]


class Pattern(NamedTuple):
    """Servers and tools, each by a pattern."""

    server_id: str
    tool_name: str

    def matches(self, server_id: str, tool_name: str) -> bool:
        """Whether it matches a tool of a server."""
        return (
            compiled([self.server_id]).fullmatch(server_id) is not None
            and compiled([self.tool_name]).fullmatch(tool_name) is not None
        )


ANYTHING: Final = Pattern(ANY, ANY)


def compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return an expression that fully matches what any of ``patterns`` does; case matters."""
    parts = (".*".join(map(re.escape, pattern.split(ANY))) for pattern in patterns)
    return re.compile("|".join(parts), re.DOTALL)
