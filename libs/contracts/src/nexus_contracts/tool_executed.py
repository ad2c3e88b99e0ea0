"""`tool.executed`: a run of a tool ended, whoever started it."""

from typing import Annotated, ClassVar, Final, Literal
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


class ToolExecutedV2(ToolExecutedV1):
    """One tool run, with the model that it used and its tokens by kind, its details.

    All that is charged is what version 1 has. ``token_count`` stays the total that is charged: it
    is stated by the publisher and never computed from the tokens by kind. No rule between them is
    enforced: some providers count cached tokens among the input (OpenAI, Gemini), others beside it
    (Anthropic).
    """

    TYPE: ClassVar[str] = "tool.executed.v2"

    model: Text | None = None
    """The model that the run used, as its provider names it. Null or absent: none, or unknown."""
    input_tokens: Quantity | None = None
    """How many tokens the model read, as its provider counts them. Null or absent: unknown."""
    output_tokens: Quantity | None = None
    """How many tokens the model wrote, as its provider counts them. Null or absent: unknown."""
    cached_tokens: Quantity | None = None
    """How many tokens the provider read from its cache. Null or absent: unknown."""


ToolExecuted = ToolExecutedV1
"""What every version has: each later one is a subclass."""

TOOL_EXECUTED_VERSIONS: Final[tuple[type[ToolExecuted], ...]] = (ToolExecutedV1, ToolExecutedV2)
"""All versions that are read."""
