"""The gate of the websockets: pictures that leave as binary messages.

Nodes send finished pictures this way too (Save Image (Websocket)), not previews alone. Other packs
have websockets of their own.
"""

import asyncio
import functools
import json
import logging
from collections.abc import Callable

from protocol import BinaryEventTypes as Event
from server import PromptServer, web

from ..audit.pictures import Unreadable
from .answers import as_png, said, substitute
from .files import is_words
from .keeper import Keeper
from .look import FAULTS
from .seen import Finding

logger = logging.getLogger(__name__)

OURS = ("/ws", "/api/ws")  # the host's own routes
OTHER = -1  # what another pack sends is no kind of message that the host knows
PNG = (2).to_bytes(4, "big")  # the host's number of it, before a picture without metadata


def install(keeper: Keeper) -> Callable[[], None]:
    """Look at every binary message from now on; returns what takes it away again."""
    original = PromptServer.send_bytes

    @functools.wraps(original)
    async def send_bytes(
        self: PromptServer, event: int, data: bytes | bytearray, sid: str | None = None
    ) -> None:
        try:
            message = await asyncio.to_thread(held, keeper, event, bytes(data))
        except Exception:  # whatever fails, the loop that sends goes on, and this does not leave
            logger.exception("A message with a picture was not sent.")
            return
        if message is not None:
            await original(self, event, message, sid)

    PromptServer.send_bytes = send_bytes

    def taken_away() -> None:
        PromptServer.send_bytes = original

    return taken_away


def guard(keeper: Keeper, request: web.BaseRequest, socket: web.WebSocketResponse) -> None:
    """Look at what another pack's websocket sends in bytes, before it leaves."""
    if request.path in OURS:
        return
    original = socket.send_bytes

    async def send_bytes(data: bytes, compress: int | None = None) -> None:
        try:
            message = await asyncio.to_thread(held, keeper, OTHER, bytes(data))
        except Exception:  # as above: this does not leave
            logger.exception("A message with a picture was not sent.")
            return
        if message is not None:
            await original(message, compress)

    vars(socket)["send_bytes"] = send_bytes


def held(keeper: Keeper, event: int, data: bytes) -> bytes | None:
    """A message as it may leave: a flagged picture replaced; None for one that may not."""
    head, content = _parted(event, data)
    if event == Event.TEXT:
        return data if is_words(content) else None
    try:
        keeper.check()
        found = keeper.inspector.file(content)
    except FAULTS as error:
        found = Finding("", reason=str(error))
    if found is None:
        return data if is_words(content) else None
    if found.new or found.flagged:
        keeper.tell_of_file(found)
    if not found.flagged:
        return data
    wanted = keeper.wanted
    logger.warning("A picture was %s", said(found, wanted.flagged, wanted.preset))
    known = event in (Event.PREVIEW_IMAGE, Event.PREVIEW_IMAGE_WITH_METADATA)
    if found.reason or wanted.flagged == "stop" or not known:
        return None
    shown = as_png(substitute(content, wanted.flagged))
    if event == Event.PREVIEW_IMAGE:
        return PNG + shown
    told = json.dumps(json.loads(head[4:]) | {"image_type": "image/png"}).encode()
    return len(told).to_bytes(4, "big") + told + shown


def _parted(event: int, data: bytes) -> tuple[bytes, bytes]:
    """What the host puts before a picture or a text, and it. Raises Unreadable."""
    if event == Event.PREVIEW_IMAGE:
        return data[:4], data[4:]
    if event in (Event.TEXT, Event.PREVIEW_IMAGE_WITH_METADATA):
        end = 4 + int.from_bytes(data[:4], "big")
        if end > len(data) or not is_words(data[4:end]):
            raise Unreadable("a message that is not as the host writes it")
        return data[:end], data[end:]
    return b"", data
