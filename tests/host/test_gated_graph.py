"""Graphs under `require_audit`, run by ComfyUI's own executor: results, inputs, previews."""

import asyncio
import time
import uuid

import execution
import numpy as np
import pytest
import torch
from comfy_extras.nodes_mask import MaskToImage
from gated import FACE, HARMLESS, housed, image, png
from modular_safety_lora.audit.detectors import registry
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import Opinion
from modular_safety_lora.drawing.notice import notice
from modular_safety_lora.gates.keeper import EVENT, Keeper
from modular_safety_lora.gates.look import Inspector
from modular_safety_lora.gates.seen import Seen
from modular_safety_lora.gates.wanted import RequireAudit
from PIL import Image

import nodes

CACHE = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}


@pytest.fixture(scope="module")
def house(request, tmp_path_factory):
    with housed(tmp_path_factory.mktemp("house"), **request.param) as running:
        yield running


# one server at a time: folders and methods are the process's
DECODED = pytest.mark.parametrize("house", [{}], indirect=True, scope="module")
READ = pytest.mark.parametrize(
    "house", [{"gates": ["door"], "inputs": True}], indirect=True, scope="module"
)


def run(house, prompt: dict, executor=None, **extra) -> tuple[dict, list, list]:
    """A prompt's results, the executor's messages, and what the server was given to send."""
    executor = executor or execution.PromptExecutor(
        house.server, execution.CacheType.CLASSIC, CACHE
    )
    sent, send = [], house.server.send_sync
    house.server.send_sync = lambda *message: sent.append(message)
    outputs = [
        name for name, each in prompt.items() if each["class_type"] in ("SaveImage", "PreviewImage")
    ]
    try:
        asyncio.run(executor.execute_async(prompt, uuid.uuid4().hex, extra, outputs))
    finally:
        house.server.send_sync = send
    return executor.history_result["outputs"], executor.status_messages, sent


def graph(file: str, through_vae: bool = True) -> dict:
    shown = "4" if through_vae else "1"
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": file}},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}},
        "3": {"class_type": "VAEEncode", "inputs": {"pixels": ["1", 0], "vae": ["2", 0]}},
        "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["2", 0]}},
        "5": {
            "class_type": "SaveImage",
            "inputs": {"images": [shown, 0], "filename_prefix": "a"},
        },
    }


def saved(house, results: dict) -> np.ndarray:
    (file,) = results["5"]["images"]
    return np.asarray(Image.open(house.folder / "output" / file["filename"]))


@DECODED
def test_a_withheld_picture_is_no_failed_job_and_the_history_says_so(house):
    house.put(png(FACE), "face.png", "input")
    executor = execution.PromptExecutor(house.server, execution.CacheType.CLASSIC, CACHE)
    for turn in range(2):
        results, messages, sent = run(house, graph("face.png"), executor, client_id="me")
        assert messages[-1][0] == "execution_success"
        (said,) = results["5"]["withheld"]
        assert turn or results["4"]["withheld"] == [said]
        assert said.startswith("1 of 1 picture decoded here was withheld. The preset faces")
        assert np.array_equal(saved(house, results), notice(224, 224))
        events = [message for message in sent if message[0] == EVENT]
        assert len(events) == (turn == 0), "what comes from the cache was told"


@DECODED
def test_a_picture_is_looked_at_once_from_the_vae_to_the_browser(house, monkeypatch):
    detector, looks = registry.find(), []
    look = detector.detect
    monkeypatch.setattr(detector, "detect", lambda some: looks.append(len(some)) or look(some))
    house.put(png(np.ascontiguousarray(HARMLESS[:, ::-1])), "once.png", "input")
    results, _, _ = run(house, graph("once.png"))
    (file,) = results["5"]["images"]
    assert looks == [1]
    for _ in range(2):
        assert house.get("/view", **file).content.startswith(b"\x89PNG")
    assert looks == [1], "lossless: the file's pixels are those that were decoded"


@DECODED
def test_what_is_not_flagged_has_no_words(house):
    house.put(png(HARMLESS), "cup.png", "input")
    results, messages, _ = run(house, graph("cup.png"))
    assert messages[-1][0] == "execution_success" and set(results) == {"5"}
    assert abs(saved(house, results).astype(int) - HARMLESS).max() <= 1  # by the VAE


@READ
def test_what_nodes_read_is_looked_at_whatever_the_graph(house):
    house.put(png(FACE), "face.png", "input")
    results, messages, _ = run(house, graph("face.png", through_vae=False), client_id="me")
    assert messages[-1][0] == "execution_success"
    assert results["1"]["withheld"][0].startswith("1 of 1 picture read here was withheld")
    assert results["5"]["withheld"] == results["1"]["withheld"]
    assert np.array_equal(saved(house, results), notice(224, 224))
    house.put(png(HARMLESS), "cup.png", "input")
    results, _, _ = run(house, graph("cup.png", through_vae=False))
    assert np.array_equal(saved(house, results), HARMLESS) and set(results) == {"5"}


class Fetched:
    """A node that fetches a picture while others run, as those of services do."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "fetch", "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    async def fetch(self):
        await asyncio.sleep(0.01)
        return (image(FACE),)


@READ
def test_what_a_node_fetches_is_looked_at_too(house, monkeypatch):
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "Fetched", Fetched)
    shown = {"1": {"class_type": "Fetched", "inputs": {}}, "5": graph("", False)["5"]}
    results, messages, _ = run(house, shown)
    assert messages[-1][0] == "execution_success"
    assert np.array_equal(saved(house, results), notice(224, 224))


@READ
def test_a_picture_in_the_transparency_is_no_mask(house, monkeypatch):
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "MaskToImage", MaskToImage)
    clear = np.dstack([np.full_like(FACE, 255), 255 - FACE[..., 1]])
    house.put(png(clear), "clear.png", "input")
    shown = graph("clear.png", through_vae=False)
    shown["6"] = {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}}
    shown["5"]["inputs"]["images"] = ["6", 0]
    results, _, _ = run(house, shown)
    assert np.ptp(saved(house, results).astype(int) - notice(224, 224)) <= 60
    assert "read here was withheld" in results["1"]["withheld"][0]


@DECODED
def test_without_inputs_what_is_read_flows_on(house):
    house.put(png(FACE), "face.png", "input")
    results, _, _ = run(house, graph("face.png", through_vae=False))
    assert np.array_equal(saved(house, results), FACE) and set(results) == {"5"}


@pytest.mark.long
def test_looking_costs_little_more_than_the_detectors_network():
    """At most 1.15 times the session's own time, for 16 pictures of 512 pixels."""
    opinion = Opinion(PRESETS["strict"], registry.find())
    blob = np.random.default_rng(0).random((16, 3, 320, 320), np.float32)
    plain, gated = [], []
    for turn in range(6):
        pictures = torch.rand(16, 512, 512, 3)
        keeper = Keeper(RequireAudit(), Inspector(lambda: opinion, Seen()))
        for found, work in (
            (plain, lambda: opinion.detector.network.run(blob)),
            (gated, lambda keeper=keeper, some=pictures: keeper.tensor(some, "decode")),
        ):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
        if turn and min(gated) <= 1.15 * min(plain):
            return
    raise AssertionError(f"{min(gated):.3f} s against {min(plain):.3f} s")
