"""The gate of the server: every file that it hands out was looked at, or is looked at then.

It stands around every route, those of other packs too, and goes by what an answer holds. The bytes
that were looked at are those that leave: a file that is replaced meanwhile, or has a compressed
twin beside it, is not what is sent.
"""

import asyncio
import contextlib
import mimetypes
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from server import PromptServer, web

from ..audit.pictures import Unreadable
from ..options.errors import PackError
from .answers import HEADER, instead, said, with_body
from .files import LARGEST, is_words
from .installed import Installed
from .keeper import Keeper
from .known import Changed, Known, stamped
from .look import FAULTS
from .seen import Finding
from .socket import guard
from .stream import hold_to_words

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AT_ONCE = 2  # files that are looked at at a time: each is held in memory
OF_A_PART = ("Range", "If-None-Match")  # requests that need not all of a file
# where a request keeps the answer that may leave; newer aiohttp warns of a name
LOOKED_AT: Any = "modular-safety-lora.looked-at"
if hasattr(web, "RequestKey"):
    LOOKED_AT = web.RequestKey(LOOKED_AT, web.StreamResponse)
STREAMED = (
    "This ComfyUI hands out only what was looked at (require_audit), and a stream of pictures or"
    " videos can't be. Save it to a file first."
)


def install(keeper: Keeper, server: PromptServer) -> Callable[[], None]:
    """Stand around the server's routes from now on; returns what stands aside again."""
    door = Door(keeper, server)

    async def at_the_door(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await door.answer(request, handler) if door.holds else await handler(request)

    server.app.middlewares.insert(0, web.middleware(at_the_door))
    server.app.on_response_prepare.append(door.leaving)

    def taken_away() -> None:
        door.holds = False  # a server that runs keeps its list

    return taken_away


class Door:
    """What stands around the routes of one server."""

    def __init__(self, keeper: Keeper, server: PromptServer):
        self.keeper, self.server, self.holds = keeper, server, True
        self._installed = Installed(server)
        self._known = Known()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A route's answer, or what takes its place."""
        try:
            original = await handler(request)
        except web.HTTPException as error:
            answer = await self._looked(request, error)
            request[LOOKED_AT] = answer
            if answer is error:
                raise
            return answer
        answer = await self._looked(request, original)
        request[LOOKED_AT] = answer
        return answer

    async def leaving(self, request: web.Request, response: web.StreamResponse) -> None:
        """Before an answer's head is sent: one that was not looked at must hold words alone."""
        is_stream = not isinstance(response, web.Response | web.FileResponse)
        if not self.holds or (request.get(LOOKED_AT) is response and not is_stream):
            return
        if isinstance(response, web.WebSocketResponse):
            return guard(self.keeper, request, response)
        if _words(response):
            if is_stream:
                hold_to_words(response)
            return
        if isinstance(response, web.FileResponse) and self._installed.has(_file_of(response)):
            return
        raise web.HTTPForbidden(text=STREAMED, headers={HEADER: "withheld: a stream"})

    async def _looked(
        self, request: web.Request, original: web.StreamResponse
    ) -> web.StreamResponse:
        if isinstance(original, web.WebSocketResponse) or original.prepared or _words(original):
            return original
        path = _file_of(original) if isinstance(original, web.FileResponse) else None
        if path is not None and self._installed.has(path):
            return original
        async with self._places:
            if path is not None and (part := await self._of_known(request, original, path)):
                return part
            try:
                stamp = None if path is None else await asyncio.to_thread(stamped, path)
                content = await _content(original, path)
            except FileNotFoundError:
                raise web.HTTPNotFound from None
            except (OSError, Unreadable) as error:
                return await self._replaced(request, b"", Finding("", reason=str(error)))
            try:
                found = await asyncio.to_thread(self._find, content)
            except Unreadable as error:
                found = Finding(sha256(content).hexdigest(), reason=str(error))
            if found is not None and found.flagged:
                return await self._replaced(request, content, found)
            if found is not None and found.new:
                await self._tell(request, found)
        if path is None:
            # what was iterated is gone
            original.body = content
            return original
        if found is not None:
            digest = found.digest
        else:
            digest = await asyncio.to_thread(lambda: sha256(content).hexdigest())
        with contextlib.suppress(OSError, *FAULTS):  # it is read whole again
            self._known.put(path, stamp, digest, self.keeper.inspector.rules_of_files())
        return with_body(request, original, content, _type_of(original, path), digest)

    async def _of_known(
        self, request: web.Request, original: web.StreamResponse, path: Path
    ) -> web.Response | None:
        """A part of a large file that was looked at, and is the same; None for any other."""
        if self.keeper.mistake or not any(each in request.headers for each in OF_A_PART):
            return None
        try:
            part = self._known.get(path, self.keeper.inspector.rules_of_files())
            if part is None:
                return None
            kind = _type_of(original, path)
            return await asyncio.to_thread(with_body, request, original, part, kind, part.digest)
        except (Changed, OSError, *FAULTS):
            return None

    def _find(self, content: bytes) -> Finding | None:
        """What is found of a file; what can't be looked at by whatever fault has a reason."""
        if self.keeper.mistake:
            raise Unreadable(self.keeper.mistake)
        try:
            return self.keeper.inspector.file(content)
        except Unreadable:
            raise
        except FAULTS as error:
            raise Unreadable(str(error)) from error

    async def _replaced(self, request: web.Request, content: bytes, found: Finding) -> web.Response:
        how, preset = self.keeper.wanted.flagged, self.keeper.wanted.preset
        await self._tell(request, found)
        body, kind, status = await asyncio.to_thread(instead, content, found, how, preset)
        headers = {HEADER: said(found, how, preset), "Cache-Control": "no-store"}
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Content-Type"] = kind
        return web.Response(status=status, body=body, headers=headers)

    async def _tell(self, request: web.Request, found: Finding) -> None:
        try:
            user = self.server.user_manager.get_request_user_id(request)
        except KeyError:  # with several users, what a page shows is asked for without a name
            user = ""
        try:
            await asyncio.to_thread(self.keeper.tell_of_file, found, user)
        except PackError as error:  # a log that can't be written
            raise web.HTTPServiceUnavailable(text=str(error)) from error


def _words(response: web.StreamResponse) -> bool:
    """Whether an answer has no body, or one of words: text, of which no picture format begins."""
    if isinstance(response, web.FileResponse):
        return False
    if not isinstance(response, web.Response):  # a stream: what it says, which it is held to
        return response.content_type.startswith("text/") or "json" in response.content_type
    body = response.body
    if body is None:
        return True
    return isinstance(body, bytes | bytearray) and is_words(bytes(body))


def _file_of(response: web.FileResponse) -> Path:
    return Path(response._path)


async def _content(response: web.StreamResponse, path: Path | None) -> bytes:
    """All bytes of an answer. Raises OSError, Unreadable."""
    if path is not None:
        if path.stat().st_size > LARGEST:
            raise Unreadable(f"larger than the limit of {LARGEST} bytes")
        return await asyncio.to_thread(path.read_bytes)
    body: Any = getattr(response, "body", None)
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    if not hasattr(body, "write"):
        raise Unreadable("a stream can't be looked at")
    collected = _Collected()
    await body.write(collected)
    return bytes(collected)


def _type_of(response: web.StreamResponse, path: Path) -> str:
    given = response.headers.get("Content-Type")
    return given or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


class _Collected(bytearray):
    """Takes what a body writes."""

    async def write(self, chunk: bytes, *_: Any, **__: Any) -> None:
        self.extend(chunk)
        if len(self) > LARGEST:
            raise Unreadable(f"larger than the limit of {LARGEST} bytes")
