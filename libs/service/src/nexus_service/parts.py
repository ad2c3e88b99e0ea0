"""Parts of a command line that are imported when they are used.

`--help` needs none of a service's own modules, and `status` neither its handlers nor its HTTP
server. So the table of commands names such a part, as entry points of packages are named
(https://packaging.python.org/en/latest/specifications/entry-points/): ``package.module:name``.
"""

from pkgutil import resolve_name
from typing import TypeAlias, TypeVar, cast

T = TypeVar("T")

Part: TypeAlias = T | str
"""A part itself, or its name."""


def load_part(part: Part[T]) -> T:
    """Return the part, imported if it is named.

    Raises:
        ImportError: the name's module can't be imported.
        AttributeError: the module has no such name.
    """
    return cast("T", resolve_name(part) if isinstance(part, str) else part)
