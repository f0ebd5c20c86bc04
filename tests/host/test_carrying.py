"""What stock nodes save has its verdict with it: known by its pixels, whatever the graph."""

import itertools
import json
from pathlib import Path

import pytest
from comfy_extras.nodes_images import SaveAnimatedPNG, SaveAnimatedWEBP, SaveImageAdvanced
from drawn import of
from gated import FACE, HARMLESS, housed, png
from modular_safety_lora.nodes import carrying
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from modular_safety_lora.provenance.reading import LOSSY, NO_VERDICT, inspect
from modular_safety_lora.provenance.record import KEY, looks
from PIL import Image
from prompts import ran

import nodes

SAVING = {
    "SaveImage": {},
    "PreviewImage": {},
    "SaveAnimatedPNG": {"fps": 6.0, "compress_level": 4},
    "SaveAnimatedWEBP": {"fps": 6.0, "lossless": True, "quality": 80, "method": "default"},
    "SaveImageAdvanced": {"format": "png", "format.bit_depth": "8-bit"},
}
SAVING["SaveImageAdvanced"] |= {"format.input_color_space": "sRGB"}
numbers = itertools.count(10)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    looks._known.clear()  # the same pixels were seen in other files of tests
    for name, node in {
        "SaveAnimatedPNG": SaveAnimatedPNG,
        "SaveAnimatedWEBP": SaveAnimatedWEBP,
        "SaveImageAdvanced": SaveImageAdvanced,
        "MSL_NudityAudit": NudityAudit,
    }.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node)


@pytest.fixture(scope="module")
def house(request, tmp_path_factory):
    with housed(tmp_path_factory.mktemp("house"), **request.param) as running:
        yield running
    carrying.end()


REQUIRED = pytest.mark.parametrize("house", [{}], indirect=True, scope="module")
FREE = pytest.mark.parametrize("house", [{"held": False}], indirect=True, scope="module")


def through_vae(file: str) -> dict:
    return {
        "1": of("LoadImage", image=file),
        "2": of("VAELoader", vae_name="pixel_space"),
        "3": of("VAEEncode", pixels=["1", 0], vae=["2", 0]),
        "4": of("VAEDecode", samples=["3", 0], vae=["2", 0]),
    }


def saving(kind: str, source: str) -> dict:
    """A node that saves, under a number that no other has: what is not new comes from the cache."""
    prefix = {} if kind == "PreviewImage" else {"filename_prefix": f"p{next(numbers)}"}
    return of(kind, images=[source, 0], **prefix, **SAVING[kind])


def files(house, shown: dict) -> list[Path]:
    return [
        house.folder / each["type"] / each["subfolder"] / each["filename"]
        for each in shown["images"]
    ]


@REQUIRED
@pytest.mark.parametrize("kind", SAVING)
def test_under_require_audit_whatever_is_decoded_and_saved_has_its_verdict(house, kind):
    house.put(png(HARMLESS), "cup.png", "input")
    house.put(png(FACE), "face.png", "input")
    workflow = {"id": "w", "nodes": []}
    for file, state in (("cup.png", "picture, not flagged"), ("face.png", "picture, flagged")):
        extra = {"extra_pnginfo": {"workflow": workflow}}
        (shown,) = ran(house, {**through_vae(file), "9": saving(kind, "4")}, "9", **extra)
        (path,) = files(house, shown)
        found = inspect(path)
        assert found["state"] == state and "require_audit, preset faces" in found["audit"]
        assert extra == {"extra_pnginfo": {"workflow": workflow}}, "other nodes get what was sent"
        with Image.open(path) as image:
            image.seek(getattr(image, "n_frames", 1) - 1)
            image.load()
            texts = {**image.info, **{v.split(":")[0]: v for v in image.getexif().values()}}
            if not getattr(image, "private_chunks", None):
                assert {"workflow", "prompt", KEY} <= texts.keys()
    assert "withhold" in found["fault"]


@REQUIRED
def test_a_lossy_file_and_a_picture_that_was_changed_since_are_not_called_clean(house):
    house.put(png(HARMLESS), "cup.png", "input")
    webp = saving("SaveAnimatedWEBP", "4")
    webp["inputs"]["lossless"] = False
    (shown,) = ran(house, {**through_vae("cup.png"), "9": webp}, "9")
    assert inspect(*files(house, shown))["fault"] == LOSSY
    larger = of("ImageScaleBy", image=["4", 0], upscale_method="bilinear", scale_by=1.5)
    prompt = {**through_vae("cup.png"), "5": larger, "9": saving("SaveImage", "5")}
    (shown,) = ran(house, prompt, "9")
    (path,) = files(house, shown)
    assert inspect(path)["fault"] == NO_VERDICT
    with Image.open(path) as image:
        assert json.loads(image.info[KEY])["not_looked_at"] == 1


def audited(file: str, **more) -> dict:
    asked = {"preset": "faces", "threshold": 0.0, "action": "none", "write_verdict": True}
    audit = of("MSL_NudityAudit", images=["1", 0], **(asked | more))
    return {"1": of("LoadImage", image=file), "4": audit}


@FREE
def test_nudity_audit_writes_on_wish_alone(house):
    house.put(png(FACE), "face.png", "input")
    prompt = audited("face.png", write_verdict=False) | {"9": saving("SaveImage", "4")}
    (shown,) = ran(house, prompt, "9")
    assert inspect(*files(house, shown))["fault"] == NO_VERDICT
    assert carrying._Held.taken_away is None, "nothing of the host is touched"
    prompt = audited("face.png") | {"9": saving("SaveImage", "4")}
    (shown,) = ran(house, prompt, "9")
    found = inspect(*files(house, shown))
    assert found["state"] == "picture, flagged" and "Nudity Audit, preset faces" in found["audit"]
    # in a prompt without an audit, of another picture
    house.put(png(HARMLESS), "cup.png", "input")
    (shown,) = ran(house, {"1": audited("cup.png")["1"], "9": saving("SaveImage", "1")}, "9")
    (path,) = files(house, shown)
    with Image.open(path) as image:
        assert KEY not in image.info


@FREE
def test_what_an_audit_of_the_cache_said_is_written_and_what_its_action_left(house):
    from execution import CacheType, PromptExecutor

    house.put(png(FACE), "face.png", "input")
    executor = PromptExecutor(house.server, CacheType.CLASSIC, {"ram": 0.0, "ram_inactive": 0.0})
    for _ in range(2):
        prompt = audited("face.png", action="blur") | {"9": saving("SaveImage", "4")}
        (shown,) = ran(house, prompt, "9", executor=executor)
        assert inspect(*files(house, shown))["fault"] == "an audit flagged it (blur)"


@FREE
def test_each_picture_of_a_batch_is_told_by_its_own_pixels(house):
    house.put(png(FACE), "face.png", "input")
    house.put(png(HARMLESS), "cup.png", "input")
    both = {
        "1": of("LoadImage", image="face.png"),
        "2": of("LoadImage", image="cup.png"),
        "3": of("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": audited("")["4"] | {},
        "9": saving("SaveImage", "4"),
        "8": saving("SaveAnimatedWEBP", "4"),
    }
    both["4"]["inputs"]["images"] = ["3", 0]
    single, film = ran(house, both, "9", "8")
    states = [inspect(path)["state"] for path in files(house, single)]
    assert states == ["picture, flagged", "picture, not flagged"]
    assert inspect(*files(house, film))["flagged"] == "1 of 2 looks"
