"""Several clients of a server, and what they got of it."""

import asyncio
import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from aiohttp import ClientConnectionError, ClientSession, WSMsgType
from modular_safety_lora.drawing.notice import notice
from modular_safety_lora.lab.server import Server
from PIL import Image

GONE = (ClientConnectionError, ConnectionError, asyncio.TimeoutError)
HEADER = "X-Modular-Safety-LoRA"
ENDS = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


@dataclass
class Sent:
    """A prompt, and what its client saw of it."""

    number: str
    kind: str
    user: str
    client: str
    answered: bool = False
    end: str = ""  # as the history has it


@dataclass
class Crowd:
    """All that was sent and all that left, over every start of the server."""

    sent: list[Sent] = field(default_factory=list)
    left: list[tuple[str, bytes, bool]] = field(default_factory=list)  # how, bytes, with a HEADER

    async def client(self, server: Server, user: str, jobs: list[tuple[str, dict]]) -> None:
        """Send one after the other, and fetch what each made; ends where the server does."""
        try:
            async with self._connected(server, user) as (session, events):
                for kind, graph in jobs:
                    await self._one(
                        session, events, Sent(str(uuid.uuid4()), kind, user, user), graph
                    )
        except GONE:
            return

    async def everything(self, server: Server) -> None:
        """Fetch whatever lies in the output folder, such as what a kill left there."""
        async with ClientSession(server.url) as session:
            for file in (server.folder / "output").glob("*.png"):
                await self._fetch(session, {"filename": file.name})

    @asynccontextmanager
    async def _connected(self, server: Server, user: str) -> AsyncIterator[tuple]:
        headers = {"comfy-user": user}
        async with (
            ClientSession(server.url, headers=headers) as session,
            session.ws_connect(f"/ws?clientId={user}", max_msg_size=0) as ws,
        ):

            async def next_event() -> tuple[str, dict]:
                while True:
                    message = await ws.receive(120)
                    if message.type == WSMsgType.BINARY:
                        self.left.append(("socket", picture_of(message.data), False))
                    elif message.type == WSMsgType.TEXT:
                        event = json.loads(message.data)
                        return event["type"], event.get("data", {})
                    else:
                        raise ConnectionError

            yield session, next_event

    async def _one(
        self, session: ClientSession, events: Callable, asked: Sent, graph: dict
    ) -> None:
        self.sent.append(asked)
        body = {"prompt": graph, "prompt_id": asked.number, "client_id": asked.client}
        async with session.post("/prompt", json=body) as answer:
            asked.answered = True
            if answer.status != 200:
                asked.end = "invalid"
                return
        while True:
            kind, data = await events()
            if data.get("prompt_id") != asked.number:
                continue
            if asked.kind == "interrupted" and kind == "progress":
                await session.post("/interrupt", json={"prompt_id": asked.number})
            if kind in ENDS:
                break
        while not (entry := await self._json(session, f"/history/{asked.number}")):
            await asyncio.sleep(0.02)
        said = [each[0] for each in entry[asked.number]["status"]["messages"]]
        asked.end = next(ENDS[each] for each in said if each in ENDS)
        for shown in entry[asked.number]["outputs"].values():
            for each in shown.get("images", ()):
                await self._fetch(session, each)

    async def _fetch(self, session: ClientSession, shown: dict) -> None:
        """As a page does: without a user, whole, in a range, and as a small preview."""
        for how, more, headers in (
            ("view", {}, {}),
            ("range", {}, {"Range": "bytes=0-"}),
            ("preview", {"preview": "webp;50"}, {}),
        ):
            async with session.get("/view", params={**shown, **more}, headers=headers) as answer:
                assert answer.status in (200, 206), (how, answer.status, await answer.text())
                self.left.append((how, await answer.read(), HEADER in answer.headers))

    @staticmethod
    async def _json(session: ClientSession, path: str) -> dict:
        async with session.get(path) as answer:
            return await answer.json()


def picture_of(message: bytes) -> bytes:
    """The picture in a binary message: behind its kind and its format."""
    return message[8:]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_notice(content: bytes) -> bool:
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    return np.array_equal(pixels, notice(*pixels.shape[1::-1]))
