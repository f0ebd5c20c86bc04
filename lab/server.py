"""A live ComfyUI with this pack in it, and a client that follows a prompt over its websocket."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import requests
from aiohttp import ClientSession, WSMsgType

from ..host.comfyui import comfyui_path
from . import assets

PACK = Path(__file__).resolve().parents[1]
PACK_NAME = "modular-safety-lora"
# what the Registry's archive leaves out
NOT_SHIPPED = (PACK / ".comfyignore").read_text(encoding="utf-8").split()
MADE_HERE = (
    ".*",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
    "demo-output",
    "gpu-output",
    "test-output",
)
START_SECONDS = 180


class PromptRefused(RuntimeError):
    """The server did not take a prompt, or not all of it; `errors` is its answer."""

    def __init__(self, errors: dict):
        super().__init__(json.dumps(errors, indent=1))
        self.errors = errors


@dataclass
class Outcome:
    """How a prompt ended: what each node showed (`ui` by node id), or the failed node's error."""

    outputs: dict[str, dict] = field(default_factory=dict)
    error: dict | None = None


class Server:
    """`with Server(folder) as server:` runs ComfyUI, by default on the CPU, and stops it.

    `folder` is its base directory; the pack is installed there, unless it is there already.
    """

    def __init__(self, folder: Path, arguments: tuple[str, ...] = ("--cpu",), install: bool = True):
        self.folder = Path(folder)
        self.arguments = arguments
        self.install = install
        self.log = self.folder / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        if self.install:
            install_pack(self.folder / "custom_nodes")
        command = [sys.executable, str(comfyui_path() / "main.py"), "--port", str(self.port)]
        command += [
            "--base-directory",
            str(self.folder),
            "--disable-auto-launch",
            "--database-url",
            "sqlite:///:memory:",
        ]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the server process, by force after ten seconds."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait_until_up(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                if requests.get(f"{self.url}/system_stats", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.3)
        raise RuntimeError(
            f"ComfyUI did not start; the end of {self.log}:\n"
            f"{self.log.read_text(errors='replace')[-3000:]}"
        )

    def get(self, path: str, **query: str) -> requests.Response:
        """GET a path of the server's API; raises for error codes."""
        answer = requests.get(f"{self.url}{path}?{urlencode(query)}", timeout=60)
        answer.raise_for_status()
        return answer

    def picture(self, reference: dict) -> bytes:
        """The file of a picture that a node showed; `reference` is an item of its ui `images`."""
        return self.get("/view", **reference).content

    async def run(
        self, prompt: dict, on_event: Callable[[str, dict], None] = lambda kind, data: None
    ) -> Outcome:
        """Post an API-format prompt and follow it to its end.

        Raises PromptRefused when it does not validate.
        """
        client = uuid.uuid4().hex
        outcome = Outcome()
        async with (
            ClientSession() as session,
            session.ws_connect(f"{self.url}/ws?clientId={client}", max_msg_size=0) as ws,
        ):
            async with session.post(
                f"{self.url}/prompt", json={"prompt": prompt, "client_id": client}
            ) as answer:
                body = await answer.json()
            # with 200, ComfyUI runs what other outputs need
            if answer.status != 200 or body.get("node_errors"):
                raise PromptRefused(body)
            async for message in ws:
                if message.type != WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                kind, data = event["type"], event.get("data", {})
                if data.get("prompt_id") != body["prompt_id"]:
                    continue
                on_event(kind, data)
                if kind == "executed":
                    outcome.outputs[data["node"]] = data["output"]
                elif kind in ("execution_error", "execution_interrupted"):
                    outcome.error = data
                    return outcome
                elif kind == "execution_success":
                    return outcome
        raise RuntimeError("The server closed the connection before the prompt ended.")


def install_pack(custom_nodes: Path) -> Path:
    """Copy what ships of the pack to a custom_nodes folder, under ComfyUI-Manager's name for it."""
    target = custom_nodes / PACK_NAME
    shutil.rmtree(target, ignore_errors=True)
    custom_nodes.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        PACK,
        target,
        ignore=shutil.ignore_patterns(*MADE_HERE, *(name.rstrip("/") for name in NOT_SHIPPED)),
    )
    return target


def place_models(source: Path, folder: Path) -> None:
    """Put seeded models below a base directory: linked where the disk allows it, else copied.

    Those that the shipped workflows name go there by these names too.
    """
    models = folder / "models"
    for file in source.rglob("*.safetensors"):
        target = models / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            assets.link(file, target)
    for name, seeded in assets.SHIPPED.items():
        if (models / seeded).exists() and not (models / name).exists():
            assets.link(models / seeded, models / name)
