"""`tool.executed`: a run of a tool ended, whoever started it."""

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field, JsonValue

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import BILLED, Quantity, Text

Origin = Literal["direct", "hub", "job"]
Status = Literal["succeeded", "failed"]


class ToolExecutedV1(EventData):
    """One tool run. ``token_count`` counts what the run consumed, where its tool knows it."""

    TYPE: ClassVar[str] = "tool.executed.v1"
    FREE_FORM: ClassVar[str | None] = "metadata"

    user_id: Annotated[UUID, BILLED]
    """The user who is charged."""
    server_id: Annotated[Text, BILLED]
    """The server that the tool belongs to."""
    tool_name: Annotated[Text, BILLED]
    """The tool's name at its server."""
    origin: Origin
    """What started the run: a direct call, the hub, or a job."""
    status: Annotated[Status, BILLED]
    """How the run ended. By default only runs that succeeded are charged."""
    token_count: Annotated[Quantity | None, BILLED] = None
    """How many tokens the run consumed in total. Null or absent: unknown, and none are charged."""
    metadata: Annotated[dict[str, JsonValue] | None, Field(repr=False)] = None
    """The publisher's own, without effect on billing. If it can't be read, it is left out."""


ToolExecuted = ToolExecutedV1
