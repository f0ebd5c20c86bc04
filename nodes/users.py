"""Which user sent a prompt: ComfyUI knows it while it takes the prompt, and forgets it then."""

import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from comfy.cli_args import args
from server import PromptServer

KEPT = 4096  # prompts: the oldest are forgotten
_sender: ContextVar[str | None] = ContextVar("sender", default=None)
_users: OrderedDict[str, str | None] = OrderedDict()


def sender() -> str | None:
    """Who sent the request that is answered now, as far as that is known."""
    return _sender.get()


def user_of(prompt_id: str) -> str | None:
    """The user of a prompt; None where there is one user only, or who it was is not known."""
    return _users.get(prompt_id)


def watch_users() -> Callable[[], None]:
    """Remember who sends prompts, with `--multi-user`; returns what ends it."""
    server = getattr(PromptServer, "instance", None)
    if server is None or not args.multi_user:
        return lambda: None

    async def noting(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        _sender.set(request.headers.get("comfy-user"))
        return await handler(request)

    noting.__middleware_version__ = 1  # as aiohttp marks one that takes request and handler
    server.app.middlewares.append(noting)
    server.add_on_prompt_handler(_note)

    def ended() -> None:
        server.app.middlewares.remove(noting)
        server.on_prompt_handlers.remove(_note)

    return ended


def _note(prompt: dict[str, Any]) -> dict[str, Any]:
    """Keep a prompt's user under its number, which the host otherwise makes later.

    Clients may give a number, and everybody sees those of others: one that is another user's is
    changed, or that user would have sent this prompt.
    """
    user = _sender.get()
    number = prompt.get("prompt_id") or str(uuid.uuid4())
    if _users.setdefault(str(number), user) != user:
        number = str(uuid.uuid4())
        _users[number] = user
    prompt["prompt_id"] = number
    while len(_users) > KEPT:
        _users.popitem(last=False)
    return prompt
