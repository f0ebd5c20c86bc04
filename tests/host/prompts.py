"""Prompts that ComfyUI's own executor runs in this process, as its server would."""

import asyncio
import uuid

import execution

CACHE = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}


def ran(house, prompt: dict, *outputs: str, executor=None, **extra) -> list[dict]:
    """What output nodes show. The server's queue has the prompt meanwhile, as when it is sent.

    Raises AssertionError with the error of a node.
    """
    number, queue = uuid.uuid4().hex, house.server.prompt_queue
    executor = executor or execution.PromptExecutor(
        house.server, execution.CacheType.CLASSIC, CACHE
    )
    queue.currently_running[0] = (0, number, prompt, extra, list(outputs), {})
    try:
        asyncio.run(executor.execute_async(prompt, number, extra, list(outputs)))
    finally:
        del queue.currently_running[0]
    last, told = executor.status_messages[-1]
    assert last == "execution_success", f"{told['exception_type']}: {told['exception_message']}"
    return [executor.history_result["outputs"][each] for each in outputs]
