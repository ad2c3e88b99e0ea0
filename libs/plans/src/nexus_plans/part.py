"""What every part of the file has in common."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from nexus_contracts.wording import worded_pattern

NAME: Final = worded_pattern(
    r"^[a-z][a-z0-9_-]{0,62}$", "must begin with a-z and have only a-z, 0-9, _ and - after it"
)

Name = Annotated[str, Field(pattern=NAME)]
"""The name of a plan, a route, a limit or a feature, as it stands in databases and in answers."""


class Part(BaseModel):
    """A part of the file: its types are strict, and keys that it does not know are refused."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_by_name=False,
        validate_by_alias=True,
    )
