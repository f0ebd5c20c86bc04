"""The gate of streams: what calls itself text is held to that as it leaves."""

import codecs
from collections.abc import Awaitable, Callable
from typing import Any

from server import web

from ..options.errors import PackError
from .files import is_words

HEAD = 2**16  # bytes from the start in which a picture that is written as text is looked for


class NoWords(PackError, RuntimeError):
    """A stream that calls itself text holds something else; it ends here."""


def hold_to_words(response: web.StreamResponse) -> None:
    """Raise NoWords in the route that writes to a stream what is no text, before it leaves."""
    decoder, head = codecs.getincrementaldecoder("utf-8")(), bytearray()

    def check(chunk: bytes) -> None:
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise NoWords(_said(response)) from error
        if b"\0" in chunk:
            raise NoWords(_said(response))
        if len(head) < HEAD:
            head.extend(chunk[: HEAD - len(head)])
            # a letter may be cut in two at its end
            if not is_words(head.decode(errors="ignore").encode()):
                raise NoWords(_said(response))

    def held(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def write(data: Any = b"") -> None:
            check(bytes(data))
            await original(data)

        return write

    vars(response).update(write=held(response.write), write_eof=held(response.write_eof))


def _said(response: web.StreamResponse) -> str:
    return (
        f"This ComfyUI hands out only what was looked at (require_audit), and a stream that is sent"
        f" as {response.content_type} holds what is no text. Save pictures to a file first."
    )
