"""docs/asyncapi.json is AsyncAPI as its own parser has it, and has every channel."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nexus_contracts import ALL_EVENTS, UsageThresholdReachedV1
from nexus_messaging.topology import WORK_QUEUES, dead_letter_queue
from support.node import NODE, npm_ci

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/asyncapi.json"
PARSER = Path(__file__).parent / "asyncapi"

Validate = Callable[[Path], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def validate(tmp_path_factory: pytest.TempPathFactory) -> Validate:
    """Return what validates a document; it needs the npm registry."""
    folder = tmp_path_factory.mktemp("asyncapi")
    shutil.copytree(PARSER, folder, dirs_exist_ok=True)
    npm_ci(folder)

    def run(document: Path) -> subprocess.CompletedProcess[str]:
        command = [NODE, folder / "validate.mjs", document]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    return run


@pytest.mark.long
@pytest.mark.timeout(900)
def test_document_is_valid_by_the_parser_of_asyncapi(validate: Validate) -> None:
    """Generators of code and pages take it: no error, no warning."""
    checked = validate(DOCUMENT)

    assert checked.returncode == 0, checked.stdout
    assert set(checked.stdout.splitlines()) >= set(WORK_QUEUES)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_document_with_a_fault_is_refused(validate: Validate, tmp_path: Path) -> None:
    """A message that a channel refers to and that is not there; an example that breaks a rule."""
    document = read()
    del document["components"]["messages"]["user.created.v1"]
    [example] = document["components"]["messages"]["tool.executed.v1"]["examples"]
    example["payload"]["data"]["origin"] = "nowhere"
    broken = tmp_path / "asyncapi.json"
    broken.write_text(json.dumps(document))

    checked = validate(broken)

    assert checked.returncode == 1
    assert "user.created.v1" in checked.stdout


def test_every_queue_is_a_channel_and_every_event_is_sent_and_received() -> None:
    """One document for all of it: a new queue or event can't be left out.

    Notices go to whoever subscribes.
    """
    document = read()
    messages = {data.TYPE for data in ALL_EVENTS}
    used = {
        action: {
            each["$ref"].rpartition("/")[2]
            for operation in document["operations"].values()
            if operation["action"] == action
            for each in operation["messages"]
        }
        for action in ("send", "receive")
    }

    queues = {*WORK_QUEUES, *map(dead_letter_queue, WORK_QUEUES), "unroutable"}
    assert queues <= document["channels"].keys()
    assert used == {"send": messages, "receive": messages - {UsageThresholdReachedV1.TYPE}}


def read() -> Any:
    """Return the document."""
    return json.loads(DOCUMENT.read_text(encoding="utf-8"))
