"""A real server in this process whose operator demands an audit, and pictures that it flags.

A photograph's face stands for what must not be seen: the preset counts faces.
"""

import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import av
import folder_paths
import numpy as np
import requests
import torch
from aiohttp import ClientSession, web
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import audit
from modular_safety_lora.gates.files import pictures_in
from modular_safety_lora.nodes import policy, recording
from modular_safety_lora.nodes.settings import FILE
from PIL import Image
from server import PromptServer
from skimage import data

FACE = np.ascontiguousarray(data.astronaut()[:224, 112:336])
HARMLESS = np.ascontiguousarray(data.coffee()[:224, 112:336])
PLACES = ("input", "output", "temp", "user")


def has_face(*pictures: np.ndarray) -> bool:
    """Whether NudeNet finds a face, by the pack's audit and apart from its gates."""
    found = audit(iter(pictures), PRESETS["faces"])
    return any(each["flagged"] for each in found["images"])


def faces_in(content: bytes) -> bool:
    """Whether a file shows a face; nothing that can't be read shows one."""
    try:
        pictures = pictures_in(content)
        return pictures is not None and has_face(*pictures)
    except ValueError:
        return False


def png(picture: np.ndarray, **more) -> bytes:
    return encoded(picture, "PNG", **more)


def encoded(picture: np.ndarray, kind: str, frames=(), **more) -> bytes:
    written = BytesIO()
    rest = [Image.fromarray(each) for each in frames]
    told = {"save_all": True, "append_images": rest} if rest else {}
    Image.fromarray(picture).save(written, kind, **told, **more)
    return written.getvalue()


def film(frames, kind: str = "mp4", codec: str = "libx264") -> bytes:
    written = BytesIO()
    with av.open(written, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return written.getvalue()


def image(*pictures: np.ndarray) -> torch.Tensor:
    """A batch as nodes have it (B, H, W, C), float."""
    return torch.from_numpy(np.stack(pictures).astype(np.float32) / 255.0)


class Redness:
    """A detector in Python: the share of red; it counts what it looks at."""

    name, version, classes, floor, batch, provider = "redness", "1", ("RED",), 0.0, 16, "cpu"

    def __init__(self):
        self.looks = 0

    def detect(self, pictures):
        self.looks += len(pictures)
        whole = [[0, 0, *each.shape[1::-1]] for each in pictures]
        red = [float((each[..., 0] > each[..., 1:].max(2) + 60).mean()) for each in pictures]
        return [
            [{"class": "RED", "score": score, "box": box}]
            for score, box in zip(red, whole, strict=True)
        ]


@dataclass
class House:
    """The server, its folders, and what left by its websocket."""

    folder: Path
    server: PromptServer
    loop: asyncio.AbstractEventLoop
    url: str = ""
    names: Iterator[int] = field(default_factory=itertools.count)
    publishing: asyncio.Task | None = None

    def put(self, content: bytes, name: str = "", place: str = "output") -> str:
        """Write a file as another pack would."""
        name = name or f"{next(self.names)}.png"
        path = self.folder / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return name

    def get(self, path: str, headers=None, **query) -> requests.Response:
        return requests.get(f"{self.url}{path}", params=query, headers=headers, timeout=60)

    def view(self, content: bytes, name: str = "", place: str = "output", **query) -> bytes:
        """A file's answer from /view, after it was written."""
        return self.get(
            "/view", filename=self.put(content, name, place), type=place, **query
        ).content

    def saved(self, result: dict) -> list[bytes]:
        """What the server hands out for a node's result."""
        shown = result["ui"] if isinstance(result, dict) else result.ui.as_dict()
        return [
            self.get("/view", **{k: v for k, v in each.items() if isinstance(v, str)}).content
            for each in next(iter(shown.values()))
        ]

    def sent(self, *messages: tuple) -> list[bytes]:
        """What a client gets over the websocket of messages that nodes send; ends with a text."""

        async def listen() -> list[bytes]:
            found = []
            async with (
                ClientSession() as session,
                session.ws_connect(f"{self.url}/ws?clientId=x") as ws,
            ):
                await ws.receive(timeout=20)
                for each in messages:
                    self.server.send_sync(*each, "x")
                self.server.send_sync("the end", {}, "x")
                async for message in ws:
                    if message.type.name == "BINARY":
                        found.append(message.data)
                    elif json.loads(message.data)["type"] == "the end":
                        return found
            return found

        return asyncio.run(listen())


@contextlib.contextmanager
def own_folders(folder: Path) -> Iterator[None]:
    before = {place: getattr(folder_paths, f"get_{place}_directory")() for place in PLACES}
    for place in PLACES:
        (folder / place).mkdir(parents=True, exist_ok=True)
        getattr(folder_paths, f"set_{place}_directory")(str(folder / place))
    yield
    for place, path in before.items():
        getattr(folder_paths, f"set_{place}_directory")(path)


@contextlib.contextmanager
def housed(folder: Path, routes: Callable[[House], None] = lambda house: None, **wanted):
    """A server whose settings hold `require_audit` as wanted, in a thread of its own.

    `held=False` is one without settings, `settings` is all of the file.
    """
    before = getattr(PromptServer, "instance", None)
    with contextlib.ExitStack() as done:
        done.enter_context(own_folders(folder))
        loop = asyncio.new_event_loop()
        house = House(folder, PromptServer(loop), loop)
        done.callback(setattr, PromptServer, "instance", before)
        routes(house)
        house.server.add_routes()
        settings = wanted.pop("settings", None)
        if wanted.pop("held", True):
            asked = {"require_audit": {"preset": "faces", **wanted}}
            (folder / "user" / FILE).write_text(json.dumps(settings or asked))
        done.callback(policy.install())
        done.callback(recording.install())
        threading.Thread(target=loop.run_forever, daemon=True).start()

        async def start() -> int:
            runner = web.AppRunner(house.server.app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            house.publishing = loop.create_task(house.server.publish_loop())
            return runner.addresses[0][1]

        port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
        house.url = f"http://127.0.0.1:{port}"
        done.callback(loop.call_soon_threadsafe, loop.stop)
        done.callback(loop.call_soon_threadsafe, house.publishing.cancel)
        yield house
