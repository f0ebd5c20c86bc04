"""The audit node against NudeNet: same classes, boxes and scores for every kind of picture."""

import itertools
import json
from pathlib import Path

import comfy.model_management
import folder_paths
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modular_safety_lora.audit import censor, sheet
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import audit
from modular_safety_lora.nodes.nudity_audit import AuditStopped, NudityAudit
from PIL import Image, ImageColor
from skimage import data

SIZES = [(512, 512), (512, 300), (300, 512), (96, 640), (640, 96), (64, 64), (257, 511)]


@pytest.fixture(scope="module")
def oracle():
    from nudenet import NudeDetector

    return NudeDetector()


def to_image(pixels: np.ndarray) -> torch.Tensor:
    """What LoadImage makes of uint8 pixels: (1, H, W, C), float 0..1."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return torch.from_numpy(pixels.astype(np.float32) / 255.0)[None]


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


def report_of(output) -> dict:
    return json.loads(output.args[2])


def test_detections_equal_nudenets_on_varied_pictures(oracle):

    cases = pictures()
    assert len(cases) >= 50
    hits = 0
    for pixels in cases.values():
        three = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels
        expected = oracle.detect(np.ascontiguousarray(three[..., :3]))
        result = audit(list(to_image(pixels).numpy()), PRESETS["all"])["images"][0]
        assert_same(result["detections"], expected)
        hits += bool(expected)
    assert hits >= 20, "the oracle must find something, or this test compares nothing with nothing"


def test_the_bgr_preset_equals_nudenet_on_the_pngs_path(oracle, tmp_path):

    hits = differing = 0
    for number, pixels in enumerate(pictures().values()):
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        expected = oracle.detect(str(path))
        images = list(to_image(pixels).numpy())
        result = audit(images, PRESETS["nine exposed 0.45, from paths"])["images"][0]
        assert_same(result["detections"], expected)
        hits += bool(expected)
        differing += (
            result["detections"] != audit(images, PRESETS["all"])["images"][0]["detections"]
        )
    assert hits >= 20 and differing >= 20


def test_a_batch_of_sixteen_is_looked_at_picture_by_picture(oracle):
    face = data.astronaut()
    batch = [np.roll(face, 20 * number, axis=1) for number in range(15)] + [np.zeros_like(face)]
    images = torch.cat([to_image(pixels) for pixels in batch])
    output = NudityAudit.execute(images, "faces", 0.0, "none")
    results = report_of(output)["images"]
    for pixels, result in zip(batch, results, strict=True):
        assert_same(result["detections"], oracle.detect(pixels))
    assert results[0]["flagged"] and not results[15]["flagged"]
    assert output.args[1] is False and torch.equal(output.args[0], images)


def test_a_float_picture_is_not_given_to_the_network_as_it_is(oracle):
    """NudeNet sees black in a float picture of 0..1 and finds nothing."""
    face = to_image(data.astronaut())
    assert oracle.detect(face[0].numpy()) == []
    found = report_of(NudityAudit.execute(face, "faces", 0.0, "none"))["images"][0]["detections"]
    assert [detection["class"] for detection in found if detection["score"] > 0.5] == [
        "FACE_FEMALE"
    ]


def test_what_counts_and_what_was_detected_are_kept_apart():
    face = to_image(data.astronaut())
    strict = NudityAudit.execute(face, "strict", 0.0, "black")
    assert (
        strict.args[1] is True and torch.equal(strict.args[0], face) and strict.args[3].sum() == 0
    )
    image = report_of(strict)["images"][0]
    assert not image["flagged"] and image["reasons"] == []
    assert [(found["class"], found["counted"]) for found in image["detections"]] == [
        ("FACE_FEMALE", False)
    ]
    assert report_of(strict)["summary"]["verdict"] == "nothing detected at these thresholds"
    counted = report_of(NudityAudit.execute(face, "strict", 0.0, "none", "FACE_FEMALE=0.8"))
    assert counted["images"][0]["reasons"] == ["FACE_FEMALE"]
    assert not report_of(NudityAudit.execute(face, "faces", 0.9, "none"))["images"][0]["flagged"]


@pytest.mark.parametrize("action", ["annotate", "blur", "black"])
def test_actions_change_flagged_boxes_and_nothing_else(action):
    face = data.astronaut()
    images = torch.cat([to_image(face), to_image(np.zeros_like(face))])
    output = NudityAudit.execute(images, "faces", 0.0, action)
    out, mask = output.args[0], output.args[3]
    x, y, w, h = report_of(output)["images"][0]["detections"][0]["box"]
    assert torch.equal(out[1], images[1]) and mask[1].sum() == 0
    assert mask[0, y : y + h, x : x + w].min() == 1.0 and mask.shape == images.shape[:3]
    inside, before = out[0, y : y + h, x : x + w], images[0, y : y + h, x : x + w]
    assert torch.equal(images[0], to_image(face)[0]), "the input must stay as it was"
    if action == "black":
        assert inside.max() == 0.0
    else:
        assert not torch.equal(inside, before) and inside.std() > 0
    if action != "annotate":
        assert torch.equal(out[0][mask[0] == 0], images[0][mask[0] == 0])
        assert NudityAudit.execute(out, "faces", 0.0, "none").args[1] is True, (
            "NudeNet still sees the face"
        )


@pytest.mark.parametrize("action", ["annotate", "blur", "black"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_actions_keep_shape_channels_and_range_for_boxes_at_the_edge(action, channels):

    boxes = [
        [0, 0, 3, 3],
        [45, 28, 3, 2],
        [0, 0, 48, 30],
        [47, 29, 0, 0],
        [10, 29, 30, 1],
        [20, 0, 1, 30],
    ]
    images = torch.rand(len(boxes), 30, 48, channels, generator=torch.Generator().manual_seed(1))
    detection = {"class": "BELLY_EXPOSED", "score": 0.9, "counted": True}
    report = {
        "images": [{"flagged": True, "detections": [{**detection, "box": box}]} for box in boxes]
    }
    out, mask = censor.apply(images, report, action), censor.flagged_mask(images, report)
    assert (
        out.shape == images.shape
        and out.dtype == images.dtype
        and out.min() >= 0
        and out.max() <= 1
    )
    for (x, y, w, h), before, after, where in zip(boxes, images, out, mask, strict=True):
        assert where[y : y + h, x : x + w].bool().all() and where.sum() > 0
        if action == "black":
            assert after[y : y + h, x : x + w, :3].sum() == 0
        if channels == 4:
            assert torch.equal(after[..., 3], before[..., 3])
        assert not torch.equal(after, before)


def shown(output) -> Image.Image:
    """The one picture that the node shows, as a frontend would load it."""
    (reference,) = output.ui["images"]
    assert reference["type"] == "temp"
    return Image.open(
        Path(folder_paths.get_temp_directory(), reference["subfolder"], reference["filename"])
    )


def cell_of(picture: Image.Image, place: int, columns: int, side: int) -> np.ndarray:
    """The pixels of a cell of `side` pixels, frame included.

    Letters are 17 pixels high at least, and 23 on a wide sheet.
    """
    unit = 23 if columns * side > 700 else 17
    left, top = (
        8 + place % columns * (side + 8),
        4 * unit + 8 + place // columns * (side + unit + 16),
    )
    return np.asarray(picture)[top : top + side, left : left + side].astype(int)


def frame(cell: np.ndarray) -> str:
    """Which of the two colours a cell's frame has."""
    colours = {
        name: np.array(ImageColor.getrgb(value))
        for name, value in (("flagged", sheet.FLAGGED), ("clear", sheet.CLEAR))
    }
    return min(colours, key=lambda name: np.abs(cell[1:3].mean(axis=(0, 1)) - colours[name]).sum())


@pytest.mark.parametrize("action", ["none", "black"])
def test_a_batch_is_shown_as_one_small_sheet_with_flagged_pictures_first(action):
    face, cup = data.astronaut(), np.array(Image.fromarray(data.coffee()).resize((512, 512)))
    batch = torch.cat([to_image(face if place in (9, 14) else cup) for place in range(15)])
    before = set(Path(folder_paths.get_temp_directory()).rglob("*"))
    output = NudityAudit.execute(batch, "faces", 0.0, action)
    picture = shown(output)
    assert len(set(Path(folder_paths.get_temp_directory()).rglob("*")) - before) <= 2, (
        "one file, and perhaps its folder"
    )
    assert (
        picture.size == (4 * 200 + 8, 100 + 3 * (192 + 39))
        and Path(picture.filename).stat().st_size < 300_000
    )
    cells = [cell_of(picture, place, 4, 192) for place in range(12)]
    assert [frame(cell) for cell in cells] == ["flagged"] * 2 + ["clear"] * 10
    apart = np.abs(cells[0][6:-6, 6:-6] - np.array(Image.fromarray(face).resize((180, 180))))
    assert np.median(apart) < 6, "the face is the first"
    black = (cells[0][6:-6, 6:-6].max(axis=2) < 8) & (apart.max(axis=2) > 60)
    assert (black.sum() > 500) == (action == "black"), "and is changed as the pictures are"


def test_one_picture_is_shown_large_and_a_small_one_as_it_is():
    face = data.astronaut()
    large = shown(
        NudityAudit.execute(
            to_image(np.array(Image.fromarray(face).resize((1024, 1024)))), "faces", 0.0, "none"
        )
    )
    assert (
        large.size == (768 + 16, 100 + 768 + 39) and frame(cell_of(large, 0, 1, 768)) == "flagged"
    )
    small = shown(NudityAudit.execute(to_image(face[::8, ::8]), "strict", 0.0, "none"))
    assert small.height == 76 + 76 + 33 and frame(cell_of(small, 0, 1, 76)) == "clear"
    thin = shown(NudityAudit.execute(torch.zeros(2, 1, 900, 4), "strict", 0.0, "none"))
    assert thin.size == (2 * (384 + 8) + 8, 100 + 13 + 39)


@pytest.mark.parametrize("action", ["none", "annotate", "blur", "black", "stop"])
def test_pictures_are_not_copied_when_nothing_is_flagged(action):
    images = to_image(data.astronaut())
    assert NudityAudit.execute(images, "strict", 0.0, action).args[0] is images


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 5)),
    channels=st.sampled_from([1, 3, 4]),
    drawn=st.data(),
    action=st.sampled_from(["blur", "black"]),
)
def test_every_flagged_box_is_covered_wholly_for_any_size_and_batch(sizes, channels, drawn, action):
    """Boxes inside, across the border, outside, of no size; several in a picture.

    Only what counts is touched.
    """
    height, width, count = sizes
    images = (
        torch.rand(count, height, width, channels, generator=torch.Generator().manual_seed(7)) * 0.8
        + 0.2
    )
    number = st.integers(-10, 70)
    boxes = [
        drawn.draw(
            st.lists(
                st.tuples(number, number, st.integers(0, 70), st.integers(0, 70), st.booleans()),
                max_size=3,
            )
        )
        for _ in range(count)
    ]
    results = []
    for each in boxes:
        found = [
            {"class": "X", "score": 0.9, "box": list(box), "counted": is_counted}
            for *box, is_counted in each
        ]
        results.append({"flagged": any(one["counted"] for one in found), "detections": found})
    before = images.clone()
    out, mask = (
        censor.apply(images, {"images": results}, action),
        censor.flagged_mask(images, {"images": results}),
    )
    assert torch.equal(images, before) and out.shape == images.shape
    for picture, was, where, each in zip(out, before, mask, boxes, strict=True):
        covered = torch.zeros(height, width, dtype=torch.bool)
        for x, y, w, h, is_counted in each:
            if is_counted:
                covered[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
        assert where.bool()[covered].all(), "no part of a box is left out"
        if action == "black":
            assert (picture[covered][:, :3] == 0).all()
        assert torch.equal(picture[~where.bool()], was[~where.bool()]), "nothing else is changed"
        assert where.bool().any() == any(box[4] for box in each), (
            "a flagged picture always shows it"
        )


def test_a_blurred_box_keeps_nothing_finer_than_its_cells():
    """A blurred box carries at most 6 x 6 values: a checkerboard of single pixels becomes flat."""
    board = torch.zeros(1, 300, 300, 3)
    board[:, ::2, ::2], board[:, 1::2, 1::2] = 1.0, 1.0
    for box in ([0, 0, 300, 300], [20, 30, 100, 40], [5, 5, 9, 9]):
        result = {
            "flagged": True,
            "detections": [{"class": "X", "score": 1.0, "box": box, "counted": True}],
        }
        x, y, w, h = box
        inside = censor.apply(board, {"images": [result]}, "blur")[0, y : y + h, x : x + w]
        assert inside.std() < 0.05


def test_a_second_opinion_and_its_agreement_are_in_the_report():
    face = to_image(data.astronaut())
    output = NudityAudit.execute(
        torch.cat([face, face * 0]), "faces", 0.0, "none", second_opinion="all"
    )
    report = report_of(output)
    assert [image["second"]["flagged"] for image in report["images"]] == [True, False]
    assert (
        report["summary"]["second_opinion"]["agreement"] == 1.0
        and report["summary"]["second_opinion"]["kappa"] == 1.0
    )
    strict = report_of(NudityAudit.execute(face, "strict", 0.0, "stop", second_opinion="faces"))
    assert strict["images"][0]["second"]["flagged"] and not strict["images"][0]["flagged"]


def test_stop_raises_with_the_report():

    face = to_image(data.astronaut())
    with pytest.raises(AuditStopped, match="1 of 1 flagged") as caught:
        NudityAudit.execute(face, "faces", 0.0, "stop")
    report = json.loads(str(caught.value).split("Report: ", 1)[1])
    assert report["images"][0]["detections"][0]["class"] == "FACE_FEMALE"
    assert NudityAudit.execute(face, "strict", 0.0, "stop").args[1] is True


def spoilt(value: float) -> torch.Tensor:
    """A picture with one value that is no colour."""
    image = torch.full((1, 64, 64, 3), 0.5)
    image[0, 40, 9, 1] = value
    return image


@pytest.mark.parametrize(
    "bad",
    [
        spoilt(np.nan),
        spoilt(np.inf),
        spoilt(-np.inf),
        torch.zeros(1, 8, 8, 2),
        torch.zeros(1, 0, 8, 3),
    ],
)
def test_pictures_that_cannot_be_judged_are_an_error(bad):
    with pytest.raises(ValueError, match="image"):
        NudityAudit.execute(bad, "strict", 0.0, "none")


def test_values_far_out_of_range_are_cut_as_saveimage_cuts_them():
    large = spoilt(1e30)
    assert torch.equal(NudityAudit.execute(large, "strict", 0.0, "none").args[0], large)


def test_cancel_stops_a_long_audit():

    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        NudityAudit.execute(torch.zeros(4, 32, 32, 3), "strict", 0.0, "none")
