"""A line of the evidence log for each prompt that somebody sends, and one for how it ends.

The first is on the disk before the prompt waits in the queue, and the last before the history has
it: a prompt without an end waits, runs, or was cut off when ComfyUI ended.
"""

import asyncio
import functools
import json
import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import execution
from server import PromptServer, web

from ..evidence.figures import PROMPT
from ..evidence.log import EvidenceError
from ..evidence.recorder import record
from .users import sender, user_of

logger = logging.getLogger(__name__)
_client: ContextVar[object] = ContextVar("client", default=None)


def watch_prompts() -> Callable[[], None]:
    """Write these lines from now on; returns what ends it."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return lambda: None
    queue = execution.PromptQueue
    validate, before = execution.validate_prompt, dict(vars(queue))

    @functools.wraps(validate)
    async def validate_prompt(prompt_id: str, *args: Any, **kwargs: Any) -> Any:
        found = None
        try:
            found = await validate(prompt_id, *args, **kwargs)
        finally:  # also of a graph on which the host's check fails
            if found is None or not found[0]:
                about = {"client": _client.get(), "user": sender()}
                await asyncio.to_thread(_told, prompt_id, "invalid", about)
        return found

    @functools.wraps(queue.put)
    def put(self: Any, item: tuple) -> None:
        try:
            _line(item[1], "queued", _whose(item))
        except EvidenceError as error:  # as the host answers what it does not take
            said = {"type": "not_recorded", "message": str(error), "details": "", "extra_info": {}}
            text = json.dumps({"error": said, "node_errors": {}})
            raise web.HTTPServiceUnavailable(text=text, content_type="application/json") from error
        before["put"](self, item)

    @functools.wraps(queue.task_done)
    def task_done(self: Any, item_id: int, result: Any, status: Any, *args: Any, **kw: Any) -> None:
        item = self.currently_running[item_id]
        _told(item[1], _end(status), _whose(item))
        before["task_done"](self, item_id, result, status, *args, **kw)

    def removing(name: str) -> Callable[..., Any]:
        @functools.wraps(before[name])
        def removed(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.mutex:
                waited = list(self.queue)
                found = before[name](self, *args, **kwargs)
                left = {item[1] for item in self.queue}
            for item in waited:
                if item[1] not in left:
                    _told(item[1], "removed", _whose(item))
            return found

        return removed

    def note(prompt: dict[str, Any]) -> dict[str, Any]:
        _client.set(prompt.get("client_id"))
        return prompt

    ours = {"put": put, "task_done": task_done}
    ours |= {name: removing(name) for name in ("wipe_queue", "delete_queue_item")}
    execution.validate_prompt = validate_prompt
    for name, method in ours.items():
        setattr(queue, name, method)
    server.add_on_prompt_handler(note)

    def ended() -> None:
        execution.validate_prompt = validate
        for name in ours:
            setattr(queue, name, before[name])
        server.on_prompt_handlers.remove(note)

    return ended


def _whose(item: tuple) -> Mapping[str, Any]:
    return {"client": item[3].get("client_id"), "user": user_of(item[1])}


def _end(status: Any) -> str:
    """How a prompt ended: success, error or interrupted; the host counts the last as an error."""
    messages = getattr(status, "messages", None) or ()
    if any(each[0] == "execution_interrupted" for each in messages):
        return "interrupted"
    return str(getattr(status, "status_str", "error"))


def _line(prompt_id: str, state: str, whose: Mapping[str, Any]) -> None:
    record(PROMPT, {"prompt_id": prompt_id, **whose, "authenticated": False, "state": state})


def _told(prompt_id: str, state: str, whose: Mapping[str, Any]) -> None:
    """What has happened anyway: that it can't be written is said, and stops no queue."""
    try:
        _line(prompt_id, state, whose)
    except EvidenceError as error:
        logger.error("The end of the prompt %s (%s) is not recorded. %s", prompt_id, state, error)
