"""A live ComfyUI with `require_audit`: what its clients get of a photograph that it flags.

The preset counts faces; the VAE `pixel_space` decodes what was encoded with it.
"""

import asyncio
import io
import json
import shutil
import uuid

import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import audit
from modular_safety_lora.drawing.notice import notice
from modular_safety_lora.host.comfyui import comfyui_path
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import Server, place_models
from PIL import Image

pytestmark = pytest.mark.long
SETTINGS = {"require_audit": {"preset": "faces"}}


@pytest.fixture(scope="module")
def held(models, tmp_path_factory):
    """A server with the setting, previews and assets on, and a photograph among its inputs."""
    folder = tmp_path_factory.mktemp("held")
    place_models(models, folder)
    for place in ("input", "user", "custom_nodes"):
        (folder / place).mkdir()
    assets.astronaut(folder / "input" / "astronaut.png")
    by_socket = comfyui_path() / "custom_nodes" / "websocket_image_save.py"
    shutil.copy(by_socket, folder / "custom_nodes")
    (folder / "user" / "modular-safety-lora.json").write_text(json.dumps(SETTINGS))
    arguments = ("--cpu", "--fp32-text-enc", "--enable-assets", "--preview-method", "latent2rgb")
    with Server(folder, (*arguments, "--disable-api-nodes")) as running:
        yield running


def of(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def through_vae(**shown) -> dict:
    """The photograph and a grey picture through a VAE, and what shows them."""
    return {
        "1": of("LoadImage", image="astronaut.png"),
        "2": of("EmptyImage", width=512, height=512, batch_size=1, color=0x5A5A5A),
        "3": of("ImageBatch", image1=["2", 0], image2=["1", 0]),
        "4": of("VAELoader", vae_name="pixel_space"),
        "5": of("VAEEncode", pixels=["3", 0], vae=["4", 0]),
        "6": of("VAEDecode", samples=["5", 0], vae=["4", 0]),
        **shown,
    }


def posted(server, prompt: dict, **extra) -> tuple[dict, list[bytes], list[dict]]:
    """A prompt's entry in the history, and the messages that its client got."""

    async def run() -> tuple[dict, list[bytes], list[dict]]:
        client, binary, told = uuid.uuid4().hex, [], []
        async with (
            ClientSession() as session,
            session.ws_connect(f"{server.url}/ws?clientId={client}", max_msg_size=0) as ws,
        ):
            body = {"prompt": prompt, "client_id": client, "extra_data": extra}
            async with session.post(f"{server.url}/prompt", json=body) as answer:
                number = (await answer.json())["prompt_id"]
            async for message in ws:
                if message.type == WSMsgType.BINARY:
                    binary.append(message.data)
                    continue
                event = json.loads(message.data)
                told.append(event)
                if event["type"] in ("execution_success", "execution_error"):
                    break
            await asyncio.sleep(1)  # the history is written after that message
        return server.get(f"/history/{number}").json()[number], binary, told

    return asyncio.run(run())


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def has_face(picture: np.ndarray) -> bool:
    return audit(iter([picture]), PRESETS["faces"])["images"][0]["flagged"]


def test_the_batch_goes_on_and_history_and_jobs_say_what_was_withheld(held):
    shown = {"7": of("SaveImage", images=["6", 0], filename_prefix="a")}
    entry, _, told = posted(held, through_vae(**shown))
    assert entry["status"]["status_str"] == "success"
    grey, withheld = (pixels(held.picture(each)) for each in entry["outputs"]["7"]["images"])
    assert (grey == 0x5A).all() or abs(grey.astype(int) - 0x5A).max() <= 1
    assert np.array_equal(withheld, notice(512, 512))
    (said,) = entry["outputs"]["7"]["withheld"]
    assert said.startswith("1 of 2 pictures decoded here was withheld. The preset faces")
    (event,) = [each["data"] for each in told if each["type"] == "modular-safety-lora.withheld"]
    assert event["node"] == "6" and event["message"] == said and event["count"] == 1
    job = held.get(f"/api/jobs/{event['prompt_id']}").json()
    assert job["status"] == "completed" and job["outputs"]["7"]["withheld"] == [said]


def test_what_passes_by_the_vae_is_seen_at_the_door(held):
    graph = through_vae(**{"7": of("SaveImage", images=["1", 0], filename_prefix="b")})
    entry, _, _ = posted(held, graph)
    (file,) = entry["outputs"]["7"]["images"]
    answer = held.get("/view", **file)
    assert answer.headers["X-Modular-Safety-LoRA"] == "withheld: preset faces flags it"
    assert np.array_equal(pixels(answer.content), notice(512, 512))
    listed = held.get("/api/assets", include_tags="output", limit="100").json()["assets"]
    (number,) = [each["id"] for each in listed if each["name"] == file["filename"]]
    content = held.get(f"/api/assets/{number}/content")
    assert not has_face(pixels(content.content))
    assert content.headers["X-Modular-Safety-LoRA"].startswith("withheld")


def test_nothing_leaves_by_the_websocket(held):
    graph = through_vae(**{"7": of("SaveImageWebsocket", images=["1", 0])})
    _, binary, _ = posted(held, graph)
    assert binary, "the notice is sent in its place"
    assert not any(has_face(pixels(each[8:])) for each in binary)


def test_no_preview_is_sent_while_it_samples(held, shipped_prompt):
    entry, binary, _ = posted(held, shipped_prompt, preview_method="latent2rgb")
    assert entry["status"]["status_str"] == "success" and not binary


def test_the_log_says_what_is_in_force(held):
    log = held.log.read_text(errors="replace")
    assert "require_audit is in force: decode and door by the preset faces; what is flagged" in log
    assert "Traceback" not in log
