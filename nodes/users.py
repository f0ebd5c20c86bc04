"""Which user sent a prompt, and which languages that browser asks for.

ComfyUI knows it while it takes the prompt, and forgets it then.
"""

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
_languages: OrderedDict[str | None, str] = OrderedDict()


def sender() -> str | None:
    """Who sent the request that is answered now, as far as that is known."""
    return _sender.get()


def user_of(prompt_id: str) -> str | None:
    """The user of a prompt; None where there is one user only, or who it was is not known."""
    return _users.get(prompt_id)


def asked_for(user: str | None) -> str:
    """The languages of the browser that last sent a prompt of a user, as it told them."""
    return _languages.get(user, "")


def watch_users() -> Callable[[], None]:
    """Remember who sends prompts, with `--multi-user`, and in which languages each reads.

    Returns what ends it; to watch twice is to watch once.
    """
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return lambda: None
    middlewares, handlers = server.app.middlewares, server.on_prompt_handlers
    reads, notes = _noting not in middlewares, args.multi_user and _note not in handlers
    if reads:
        middlewares.append(_noting)
    if notes:
        server.add_on_prompt_handler(_note)

    def ended() -> None:
        if reads and not middlewares.frozen:  # a server that runs keeps its list
            middlewares.remove(_noting)
        if notes:
            handlers.remove(_note)

    return ended


async def _noting(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
    if args.multi_user:
        _sender.set(request.headers.get("comfy-user"))
    said = request.headers.get("Accept-Language")
    if said and request.method == "POST" and request.path.endswith("/prompt"):
        _languages[_sender.get()] = said
        if len(_languages) > KEPT:
            _languages.popitem(last=False)
    return await handler(request)


_noting.__middleware_version__ = 1  # type: ignore[attr-defined]  # takes request and handler


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
