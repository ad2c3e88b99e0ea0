"""The guide for outside services is true: its example runs, and what it promises happens."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from uuid import uuid4

import jsonschema

from integration.messaging.bench import QUEUE
from nexus_contracts import CONTENT_TYPE, ToolExecuted, read_event
from nexus_contracts.schemas import schema_of
from support.vhost import Vhost

GUIDE = (Path(__file__).parents[3] / "docs" / "publishing.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    """Return the guide's first block of code in ``language``."""
    found = re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    return found.group(1)


async def test_the_python_example_publishes_a_valid_event(vhost: Vhost, tmp_path: Path) -> None:
    """Run as it stands, as the user `publisher`, it ends well and its event is in the queue."""
    user = uuid4()
    program = tmp_path / "example.py"
    program.write_text(example("python"), encoding="utf-8")
    environment = os.environ | {"AMQP_URL": vhost.url("publisher"), "USER_ID": str(user)}

    running = await asyncio.create_subprocess_exec(sys.executable, program, env=environment)
    async with asyncio.timeout(20):
        assert await running.wait() == 0

    (got,) = await vhost.peek(QUEUE)
    event = read_event(got.body, [ToolExecuted])
    assert event.data.user_id == user
    assert (got.message_id, got.type) == (str(event.id), event.type)
    assert (got.content_type, got.delivery_mode) == (CONTENT_TYPE, 2)


def test_the_example_message_is_valid() -> None:
    """By the schema that the guide points to, and by how it is read."""
    message = json.loads(example("json"))

    jsonschema.Draft202012Validator(schema_of(ToolExecuted)).validate(message)
    assert read_event(json.dumps(message).encode(), [ToolExecuted]).data.token_count == 1234
