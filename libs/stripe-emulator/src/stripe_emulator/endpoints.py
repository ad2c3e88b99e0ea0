"""What an endpoint is: its address, parameters, permission, expandable fields and effect."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from stripe_emulator.account import StripeAccount
from stripe_emulator.parameters import Parameters

Effect: TypeAlias = Callable[[StripeAccount, str, dict[str, Any]], Mapping[str, Any]]
Row: TypeAlias = tuple[str, str, Parameters, Effect]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint; its effect gets the account, the id in the path and the parameters.

    A second id in the path is a parameter, and so is the idempotency key of a meter event's
    request, by which error reports name it. ``expandable``: the paths in its answer that ``expand``
    may name.
    """

    method: str
    pattern: re.Pattern[str]
    parameters: Parameters
    permission: str
    effect: Effect
    expandable: frozenset[str]


def resource(name: str, *rows: Row, expandable: tuple[str, ...] = ()) -> Iterator[Endpoint]:
    """Make the endpoints of a resource, which is named in the permissions for them.

    ``expandable`` are the fields of one object; in a list they are within ``data``.
    """
    for method, path, parameters, effect in rows:
        permission = f"rak_{name}_{'read' if method == 'GET' else 'write'}"
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))
        in_list = method == "GET" and not path.endswith("}")
        fields = frozenset(f"data.{field}" if in_list else field for field in expandable)
        yield Endpoint(method, pattern, parameters, permission, effect, fields)
