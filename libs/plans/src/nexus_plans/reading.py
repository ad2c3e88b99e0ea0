"""Reads the file, and says by line what is wrong with it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from nexus_contracts.wording import rule
from nexus_plans.plans import Plans
from nexus_plans.rules import Fault, Place, faults

MAX_NAMED: Final = 20
"""Faults in one text at most."""

KEY_TAGS: Final = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Above any list of models and plans; a parsed file takes many times its size."""


class PlansError(Exception):
    """The file of plans can't be used; the text names each fault by file, line and place."""


def load(path: Path | str) -> Plans:
    """Read and validate the file.

    Raises:
        PlansError: it can't be read, is no YAML, or breaks a rule.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PlansError(f"{path}: can't be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise PlansError(f"{path}: has more than {MAX_FILE_BYTES} bytes")
    return read(data, str(path))


def read(data: bytes, name: str) -> Plans:
    """Read the content of a file that is called ``name``.

    Raises:
        PlansError: it is no YAML, or breaks a rule.
    """
    root, value = _parse(data, name)
    try:
        # As JSON, whose lists and dates are read as tuples and dates though types are strict.
        plans = Plans.model_validate_json(to_json(value))
    except PydanticSerializationError:
        raise PlansError(f"{name}: has a value that is neither text, number nor date") from None
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        broken = [Fault(_place(detail["loc"]), rule(detail)) for detail in details]
        raise _error(name, root, broken) from None
    if contradictions := list(faults(plans)):
        raise _error(name, root, contradictions)
    return plans


def _parse(data: bytes, name: str) -> tuple[yaml.Node, object]:
    """Return the nodes, which know their lines, and the value that they stand for."""
    try:
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        if root is None:
            raise PlansError(f"{name}:1: is empty")
        if wrong := list(_wrong_keys(root, (), ())):
            raise _error(name, root, wrong)
        return root, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PlansError(f"{name}:{line}: is no YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        # A date such as 2026-02-30 is a ValueError, without a line.
        raise PlansError(f"{name}: is no YAML: {error}") from None


def _wrong_keys(node: yaml.Node, place: Place, above: tuple[yaml.Node, ...]) -> Iterable[Fault]:
    """Find repeated keys, of which YAML keeps the last, and keys that YAML reads as more than text.

    A plan called `no` would be called `false`.
    """
    if node in above:
        yield Fault(place, "contains itself")
        return
    inside = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            yield from _wrong_keys(child, (*place, number), inside)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            text = str(key.value)
            if key.tag not in KEY_TAGS:
                yield Fault((*place, text), "must be text: put it in quotes")
            elif text in seen:
                yield Fault((*place, text), "stands here twice")
            seen.add(text)
            yield from _wrong_keys(child, (*place, text), inside)


def _place(path: Sequence[str | int]) -> Place:
    """Drop from pydantic's path what is no part of the file."""
    return tuple(part for part in path if part != "[key]" and not str(part).startswith("literal["))


def _error(name: str, root: yaml.Node, broken: Sequence[Fault]) -> PlansError:
    lines = [
        f"{name}:{_line(root, fault.place)}: {'.'.join(map(str, fault.place)) or 'file'}:"
        f" {fault.rule}"
        for fault in broken[:MAX_NAMED]
    ]
    if len(broken) > MAX_NAMED:
        lines.append(f"… and {len(broken) - MAX_NAMED} more")
    return PlansError("\n".join(lines))


def _line(root: yaml.Node, place: Place) -> int:
    """Return the line of a place, or of the last part of its path that the file has."""
    node, line = root, root.start_mark.line
    for part in place:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line
        elif isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if str(pair[0].value) == str(part)]
            if not found:
                break
            key, node = found[-1]
            line = key.start_mark.line
        else:
            break
    return line + 1
