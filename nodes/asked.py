"""A line of the evidence log for each prompt that somebody sends, and one for how it ends.

The first is on the disk before the prompt waits in the queue, and the last before the history has
it: a prompt without an end waits, runs, or was cut off when ComfyUI ended.
"""

import asyncio
import functools
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import execution
from server import PromptServer, web

from ..evidence.figures import PROMPT
from ..evidence.log import EvidenceError
from ..evidence.recorder import record
from ..evidence.settings import Addresses
from .users import sender, user_of

logger = logging.getLogger(__name__)
FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP")  # what proxies say of a client
_client: ContextVar[object] = ContextVar("client", default=None)
_address: ContextVar[str | None] = ContextVar("address", default=None)


def watch_prompts(addresses: Addresses = "none") -> Callable[[], None]:
    """Write these lines from now on, with the client's address if wanted; returns what ends it."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return lambda: None
    queue = execution.PromptQueue
    validate, before = execution.validate_prompt, dict(vars(queue))
    holds = threading.Event()

    @functools.wraps(validate)
    async def validate_prompt(prompt_id: str, *args: Any, **kwargs: Any) -> Any:
        found = None
        try:
            found = await validate(prompt_id, *args, **kwargs)
        finally:  # also of a graph on which the host's check fails
            if found is None or not found[0]:
                about = {"client": _client.get(), "user": sender()} | _from()
                await asyncio.to_thread(_told, prompt_id, "invalid", about)
        return found

    @functools.wraps(queue.put)
    def put(self: Any, item: tuple) -> None:
        try:
            _line(item[1], "queued", _whose(item) | _from())
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

    within: list[str] = []  # to delete the last item the host wipes the queue

    def removing(name: str) -> Callable[..., Any]:
        @functools.wraps(before[name])
        def removed(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self.mutex:
                waited = [] if within else list(self.queue)
                within.append(name)
                try:
                    found = before[name](self, *args, **kwargs)
                finally:
                    within.pop()
                left = {id(item) for item in self.queue}  # two may have one number
            for item in waited:
                if id(item) not in left:
                    _told(item[1], "removed", _whose(item))
            return found

        return removed

    def note(prompt: dict[str, Any]) -> dict[str, Any]:
        _client.set(prompt.get("client_id"))
        return prompt

    async def addressed(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        _address.set(address_of(request, addresses) if holds.is_set() else None)
        return await handler(request)

    addressed.__middleware_version__ = 1
    ours = {"put": put, "task_done": task_done}
    ours |= {name: removing(name) for name in ("wipe_queue", "delete_queue_item")}
    execution.validate_prompt = validate_prompt
    for name, method in ours.items():
        setattr(queue, name, method)
    server.add_on_prompt_handler(note)
    if addresses != "none":
        holds.set()
        server.app.middlewares.append(addressed)

    def ended() -> None:
        execution.validate_prompt = validate
        for name in ours:
            setattr(queue, name, before[name])
        server.on_prompt_handlers.remove(note)
        holds.clear()  # a server that runs keeps its list

    return ended


def address_of(request: web.BaseRequest, addresses: Addresses) -> str:
    """Where a request comes from: `connection`, or what the one `proxy` before ComfyUI says.

    A proxy's address is never given for a client's: what came another way than the operator told
    has none.
    """
    forwarded = any(each in request.headers for each in FORWARDED)
    if addresses == "connection":
        return "not known: a proxy sent it" if forwarded else str(request.remote)
    said = ",".join(request.headers.getall(FORWARDED[0], ())).rpartition(",")[2].strip()
    return said or "not known: it came past the proxy"


def _from() -> dict[str, Any]:
    address = _address.get()
    return {} if address is None else {"address": address}


def _whose(item: tuple) -> dict[str, Any]:
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
