"""What detectors can't judge, and what lies in transparency: nothing of it reads as clean."""

import json
import math

import numpy as np
import pytest
from modular_safety_lora.audit import censor
from modular_safety_lora.audit.detectors import registry
from modular_safety_lora.audit.detectors.batches import Unjudged, detections, outcomes
from modular_safety_lora.audit.folders import workers
from modular_safety_lora.audit.presets import PRESETS, Preset, read_presets
from modular_safety_lora.audit.report import as_text, audit
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.options.choices import ChoiceError, chosen
from onnx_files import spoilt
from picture_folders import FACES
from PIL import Image
from skimage import data

WHITE, BLACK = (np.full((9, 9, 3), value, np.uint8) for value in (255, 0))
# that of a network which computes it of the mean of a black picture: NaN, and infinity
SPOILING = ["Sqrt", "Reciprocal"]


def thing_rules(folder, kind: str) -> Rules:
    """A rule whose detector, of `spoilt.onnx`, sees a thing on white and fails on black."""
    entry = {"kind": kind, "file": "spoilt.onnx", "classes": ["thing"], "size": 32}
    entry |= {"scores": "none"} if kind == "classifier" else {}
    preset = read_presets({"p": {"detector": "spoilt", "thresholds": {"thing": 0.5}}}, "file")
    return Rules(preset["p"], entries={"spoilt": entry}, folder=str(folder))


@pytest.mark.parametrize("kind", ["yolo", "classifier"])
@pytest.mark.parametrize("operation", SPOILING)
def test_a_picture_on_which_a_network_gives_no_numbers_is_an_error_and_the_others_are_judged(
    tmp_path, known, kind, operation
):
    spoilt(tmp_path / "spoilt.onnx", operation, kind)
    rules = thing_rules(tmp_path, kind)
    detector = rules.opinions()[0].detector
    first, second, third = outcomes(detector, [WHITE, BLACK, WHITE])
    assert first == third and first[0]["class"] == "thing" and first[0]["score"] > 0.9
    assert isinstance(second, Unjudged) and "not numbers (NaN or infinite)" in str(second)
    pictures = [each.astype(np.float32) / 255 for each in (WHITE, WHITE, BLACK)]
    with pytest.raises(ValueError, match="picture 3 can't be judged: spoilt .* not numbers"):
        audit(pictures, rules.preset, detector=detector)
    with pytest.raises(ValueError, match="picture 3 can't be judged: spoilt .* not numbers"):
        audit(pictures, PRESETS["faces"], second=rules.preset, other=detector)


@pytest.mark.parametrize("opinion", [False, True])
def test_a_folder_lists_the_picture_that_could_not_be_judged_and_goes_on(tmp_path, known, opinion):
    spoilt(tmp_path / "spoilt.onnx", "Sqrt", "yolo")
    for name, pixels in (("a", WHITE), ("b", BLACK), ("c", WHITE)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    rules = thing_rules(tmp_path, "yolo")
    if opinion:
        rules = Rules(PRESETS["faces"], rules.preset, rules.entries, rules.folder)
    files = [(str(tmp_path / f"{name}.png"), "") for name in "abc"]
    first, second, third = (row for _, _, row in workers.audit_files(files, rules))
    assert "not numbers" in second["unreadable"] and "flagged" not in second
    for row in (first, third):
        assert "unreadable" not in row and (row["second"] if opinion else row)["flagged"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"score": math.nan}, "the score nan"),
        ({"score": math.inf}, "the score inf"),
        ({"score": 3.7}, "scores must lie in 0..1"),
        ({"box": [0, 0, math.inf, 1]}, "boxes be whole pixels"),
        ({"class": "Thing"}, "gave the class 'Thing'; there are thing"),
    ],
)
def test_what_a_detector_in_python_gives_is_checked_too(wrong, message):
    class Given:
        name, version, classes, floor, batch, provider = "given", "1", ("thing",), 0.0, 8, "python"

        def detect(self, pictures):
            right = {"class": "thing", "score": 0.9, "box": [0, 0, 1, 1]}
            return [[right | (wrong if not picture.any() else {})] for picture in pictures]

    first, second = outcomes(Given(), [WHITE, BLACK])
    assert first[0]["score"] == 0.9 and message in str(second)
    with pytest.raises(Unjudged, match="picture 2"):
        list(detections(Given(), [WHITE, BLACK]))


def hidden(ground: str) -> np.ndarray:
    """A face that only its transparency shows, and only on this ground: uint8 (H, W, 4)."""
    grey = np.asarray(Image.fromarray(data.astronaut()).convert("L"))
    plain = np.full((*grey.shape, 3), 0 if ground == "white" else 255, np.uint8)
    return np.dstack([plain, 255 - grey if ground == "white" else grey])


@pytest.mark.parametrize("ground", ["white", "black"])
def test_a_picture_in_the_transparency_is_seen(ground):
    pixels = hidden(ground)
    seen, plain = (
        next(iter(detections(registry.find(), [picture]))) for picture in (pixels, pixels[..., :3])
    )
    assert [(each["class"], each["on"]) for each in seen] == [("FACE_FEMALE", ground)]
    assert plain == [], "or this would show nothing"
    floats = pixels.astype(np.float32) / 255
    assert audit([floats], PRESETS["faces"])["summary"]["flagged"] == 1
    floats[0, 0, 3] = np.nan
    with pytest.raises(ValueError, match="not numbers"):
        audit([floats], PRESETS["faces"])


def test_a_thing_that_every_ground_shows_is_counted_once():
    pixels = np.dstack([data.astronaut(), np.full((512, 512), 255, np.uint8)])
    pixels[400:, :, 3] = 200
    seen = next(iter(detections(registry.find(), [pixels])))
    assert [each["class"] for each in seen].count("FACE_FEMALE") == 1
    assert seen[0]["score"] >= registry.find().detect([data.astronaut()])[0][0]["score"]


def test_a_thing_counts_as_it_is_seen_best():
    class Bright:
        name, version, classes, floor, batch, provider = "bright", "1", ("thing",), 0.0, 8, "python"

        def detect(self, pictures):
            return [
                [{"class": "thing", "score": float(picture.mean()) / 255, "box": [0, 0, 9, 9]}]
                for picture in pictures
            ]

    pixels = np.full((9, 9, 4), 51, np.uint8)
    pixels[0, 0, 3] = 50
    for value, ground in ((51, "white"), (255, "")):
        pixels[..., :3] = value
        (found,) = next(detections(Bright(), [pixels]))
        assert found["score"] > 0.8 and found.get("on", "") == ground


def test_files_of_every_mode_are_seen_on_both_grounds_and_marked(tmp_path):
    white, black = (Image.fromarray(hidden(ground)) for ground in ("white", "black"))
    white.save(tmp_path / "rgba.png")
    white.convert("LA").save(tmp_path / "la.png")
    grey = Image.fromarray(np.asarray(white)[..., 3])
    palette = Image.frombytes("P", grey.size, grey.tobytes())
    palette.putpalette(bytes(768))
    palette.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    clear = Image.new("RGBA", white.size)
    clear.save(tmp_path / "animated.webp", save_all=True, append_images=[black], lossless=True)
    files = [(path.as_posix(), "") for path in sorted(tmp_path.iterdir())]
    rows = [row for _, _, row in workers.audit_files(files, FACES, str(tmp_path / "marked"))]
    found = {
        row["path"].rsplit("/", 1)[1]: [(each["class"], each["on"]) for each in row["detections"]]
        for row in rows
    }
    assert found == {
        "animated.webp": [("FACE_FEMALE", "black")],
        **{key: [("FACE_FEMALE", "white")] for key in ("la.png", "palette.png", "rgba.png")},
    }
    marked = {path.name: np.asarray(Image.open(path)) for path in tmp_path.rglob("marked/**/*.png")}
    assert marked.keys() == {"animated.webp-1.png", "la.png.png", "palette.png.png", "rgba.png.png"}
    assert all(each.shape == (512, 512, 3) and each.std() > 20 for each in marked.values())


def test_a_word_that_is_no_choice_changes_nothing_silently():
    import torch

    flagged = {"images": [{"flagged": True, "detections": []}]}
    with pytest.raises(ChoiceError, match="action is 'blurr'; it must be one of none, annotate"):
        censor.apply(torch.zeros(1, 8, 8, 3), flagged, "blurr")
    with pytest.raises(ChoiceError, match="action is 'Black'"):
        censor.apply(torch.zeros(1, 8, 8, 3), flagged | {"images": []}, "Black")
    with pytest.raises(ChoiceError, match="channel_order is 'BGR'; it must be one of rgb, bgr"):
        list(detections(registry.find(), [WHITE], "BGR"))
    for changed in ({"unit": "pixels"}, {"channel_order": "BGR"}):
        with pytest.raises(ChoiceError, match="written exactly so"):
            Preset("p", "", "", {"FACE_MALE": 0.5}, **changed)
    assert chosen("rgb", iter(("rgb", "bgr")), "order") == "rgb"
    for value in (None, ["rgb"], 1):
        with pytest.raises(ChoiceError, match="order is "):
            chosen(value, ("rgb",), "order")


@pytest.mark.parametrize("thresholds", [{}, {"FACE_MALE": math.nan}, {"FACE_MALE": 1.5}])
def test_no_rule_counts_nothing(thresholds):
    with pytest.raises(ValueError, match="counts no class|must lie between 0 and 1"):
        Preset("p", "", "", thresholds)


def test_a_report_as_text_is_the_report():
    report = {"prompt": 'a [1,   2]\n[ 3 ] "[4,  5]"', "box": [1, 2.5, -3], "of": [[1], []]}
    text = as_text(report)
    assert json.loads(text) == report and '"box": [ 1, 2.5, -3 ]' in text
