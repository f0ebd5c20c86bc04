"""The audit node against NudeNet: same classes, boxes and scores for every kind of picture."""

import itertools

import numpy as np
import pytest
import torch
from auditing import report_of, to_image
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import audit
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from PIL import Image
from skimage import data

SIZES = [(512, 512), (512, 300), (300, 512), (96, 640), (640, 96), (64, 64), (257, 511)]


@pytest.fixture(scope="module")
def oracle():
    from nudenet import NudeDetector

    return NudeDetector()


def pictures() -> dict[str, np.ndarray]:
    """Real photographs in many sizes, cuts, colours and channels, and synthetic pictures.

    They are uint8 (H, W[, C]).
    """
    astronaut, coffee, cat = (
        Image.fromarray(photo()) for photo in (data.astronaut, data.coffee, data.chelsea)
    )
    rng = np.random.default_rng(1)
    found = {}
    for (name, photo), (height, width) in itertools.product(
        {"face": astronaut, "coffee": coffee, "cat": cat}.items(), SIZES
    ):
        found[f"{name} {height}x{width}"] = np.array(photo.resize((width, height)))
    whole = np.array(astronaut)
    for angle in (0, 90, 180, 270):
        found[f"turned {angle}"] = np.rot90(whole, angle // 90).copy()
    for zoom in (0.4, 0.5, 0.75, 1.5, 2.0, 2.5):
        found[f"zoom {zoom}"] = np.array(astronaut.resize((int(512 * zoom), int(512 * zoom))))
    for step, cut in enumerate(
        ((0, 0, 300, 300), (120, 40, 330, 260), (60, 0, 420, 512), (150, 60, 290, 200))
    ):
        found[f"cut {step}"] = np.array(astronaut.crop(cut))
    found["mirror"] = whole[:, ::-1].copy()
    found["dark"], found["bright"] = (
        (whole * 0.4).astype(np.uint8),
        255 - ((255 - whole) * 0.5).astype(np.uint8),
    )
    found["grey, one channel"] = np.array(astronaut.convert("L"))
    found["grey, three channels"] = np.array(astronaut.convert("L").convert("RGB"))
    found["alpha"] = np.dstack([whole, np.full((512, 512), 128, np.uint8)])
    found["alpha, transparent"] = np.dstack([whole, np.zeros((512, 512), np.uint8)])
    found["two faces"] = np.concatenate([whole, whole[:, ::-1]], axis=1)
    found["six faces"] = np.tile(whole[60:220, 140:300], (2, 3, 1))
    for height, width in ((1, 1), (1, 500), (500, 1), (2, 3)):
        found[f"noise {height}x{width}"] = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    found["noise"], found["black"] = (
        rng.integers(0, 256, (200, 300, 3), dtype=np.uint8),
        np.zeros((64, 64, 3), np.uint8),
    )
    found["one row of a face"] = whole[120:121].copy()
    return found


def assert_same(ours: list[dict], theirs: list[dict]) -> None:
    assert [(found["class"], found["box"]) for found in ours] == [
        (found["class"], found["box"]) for found in theirs
    ]
    assert [found["score"] for found in ours] == pytest.approx(
        [found["score"] for found in theirs], abs=1e-4
    )


@pytest.fixture(scope="module")
def detected() -> dict[str, list[dict]]:
    """What the audit finds in each picture, as NudeNet reads an array."""
    return {name: detections(pixels, "all") for name, pixels in pictures().items()}


def detections(pixels: np.ndarray, preset: str) -> list[dict]:
    return audit(list(to_image(pixels).numpy()), PRESETS[preset])["images"][0]["detections"]


def test_detections_equal_nudenets_on_varied_pictures(oracle, detected):
    cases = pictures()
    assert len(cases) >= 50
    hits = 0
    for name, pixels in cases.items():
        three = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels
        expected = oracle.detect(np.ascontiguousarray(three[..., :3]))
        assert_same(detected[name], expected)
        hits += bool(expected)
    assert hits >= 20, "the oracle must find something, or this test compares nothing with nothing"


def test_the_bgr_preset_equals_nudenet_on_the_pngs_path(oracle, detected, tmp_path):
    hits = differing = 0
    for name, pixels in pictures().items():
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path, compress_level=1)
        expected = oracle.detect(str(path))
        found = detections(pixels, "UnlearnDiffAtk from paths")
        assert_same(found, expected)
        hits += bool(expected)
        differing += found != detected[name]
    assert hits >= 20 and differing >= 20


def test_a_batch_of_sixteen_is_looked_at_picture_by_picture(oracle):
    face = data.astronaut()
    batch = [np.roll(face, 20 * number, axis=1) for number in range(15)] + [np.zeros_like(face)]
    images = torch.cat([to_image(pixels) for pixels in batch])
    output = NudityAudit.execute(images, preset="faces", threshold=0.0, action="none")
    results = report_of(output)["images"]
    for pixels, result in zip(batch, results, strict=True):
        assert_same(result["detections"], oracle.detect(pixels))
    assert results[0]["flagged"] and not results[15]["flagged"]
    assert output.args[1] is False and torch.equal(output.args[0], images)


def test_a_float_picture_is_not_given_to_the_network_as_it_is(oracle):
    """NudeNet sees black in a float picture of 0..1 and finds nothing."""
    face = to_image(data.astronaut())
    assert oracle.detect(face[0].numpy()) == []
    found = report_of(NudityAudit.execute(face, preset="faces", threshold=0.0, action="none"))[
        "images"
    ][0]["detections"]
    assert [detection["class"] for detection in found if detection["score"] > 0.5] == [
        "FACE_FEMALE"
    ]
