"""A host that publishes runs in the background with an example's Publisher."""

import asyncio
import importlib.util
import inspect
import logging
import os
import sys
from typing import Any

NUMBER = 60


async def main(path: str) -> None:
    """Publish a run every 50 ms and print each outcome."""
    spec = importlib.util.spec_from_file_location("example", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it logs lost connections with a trace
    publisher = example.Publisher(os.environ["AMQP_URL"])
    data = {
        "user_id": os.environ["USER_ID"],
        "server_id": "weather",
        "tool_name": "forecast",
        "origin": "hub",
        "status": "succeeded",
    }

    async def publish(event: dict[str, Any]) -> None:
        if inspect.iscoroutinefunction(publisher.publish):
            outcome = await publisher.publish(event)
        else:
            outcome = await asyncio.to_thread(publisher.publish, event)
        print(event["id"], outcome, flush=True)

    unwritable = example.new_event("tool.executed.v1", data | {"metadata": {1, 2}})
    tasks = [asyncio.create_task(publish(unwritable))]
    for _ in range(NUMBER):
        tasks.append(asyncio.create_task(publish(example.new_event("tool.executed.v1", data))))
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)
    closed = publisher.close()
    if closed is not None:
        await closed


asyncio.run(main(sys.argv[1]))
