"""`tool.executed`: a run of a tool ended, whoever started it."""

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field, JsonValue

from nexus_contracts.envelope import EventData
from nexus_contracts.fields import Quantity, Text

Origin = Literal["direct", "hub", "job"]
Status = Literal["succeeded", "failed"]


class ToolExecutedV1(EventData):
    """One tool run. ``token_count`` counts what the run consumed, where its tool knows it."""

    TYPE: ClassVar[str] = "tool.executed.v1"
    FREE_FORM: ClassVar[str | None] = "metadata"

    user_id: UUID
    server_id: Text
    tool_name: Text
    origin: Origin
    status: Status
    token_count: Quantity | None = None
    metadata: Annotated[dict[str, JsonValue] | None, Field(repr=False)] = None


ToolExecuted = ToolExecutedV1
