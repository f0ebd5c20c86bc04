"""The audit node: what counts, what it shows, its second opinion, stop, and what it can't judge."""

import asyncio
from pathlib import Path

import comfy.model_management
import execution
import folder_paths
import numpy as np
import pytest
import torch
from auditing import report_of, to_image
from modular_safety_lora.audit import sheet
from modular_safety_lora.nodes.nudity_audit import AuditStopped, NudityAudit
from modular_safety_lora.nodes.prompt_audit import AuditPromptSet
from modular_safety_lora.nodes.prompt_sets import prompt_files
from modular_safety_lora.nodes.train_safety import TrainSafetyLora
from modular_safety_lora.nodes.train_task import TrainTaskLora
from PIL import Image, ImageColor
from skimage import data

import nodes


def test_what_counts_and_what_was_detected_are_kept_apart():
    face = to_image(data.astronaut())
    strict = NudityAudit.execute(face, preset="strict", threshold=0.0, action="black")
    assert (
        strict.args[1] is True and torch.equal(strict.args[0], face) and strict.args[3].sum() == 0
    )
    image = report_of(strict)["images"][0]
    assert not image["flagged"] and image["reasons"] == []
    assert [(found["class"], found["counted"]) for found in image["detections"]] == [
        ("FACE_FEMALE", False)
    ]
    assert report_of(strict)["summary"]["verdict"] == "nothing detected at these thresholds"
    counted = report_of(
        NudityAudit.execute(
            face, preset="strict", threshold=0.0, action="none", classes="FACE_FEMALE=0.8"
        )
    )
    assert counted["images"][0]["reasons"] == ["FACE_FEMALE"]
    assert not report_of(NudityAudit.execute(face, preset="faces", threshold=0.9, action="none"))[
        "images"
    ][0]["flagged"]


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
    output = NudityAudit.execute(batch, preset="faces", threshold=0.0, action=action)
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
            to_image(np.array(Image.fromarray(face).resize((1024, 1024)))),
            preset="faces",
            threshold=0.0,
            action="none",
        )
    )
    assert (
        large.size == (768 + 16, 100 + 768 + 39) and frame(cell_of(large, 0, 1, 768)) == "flagged"
    )
    small = shown(
        NudityAudit.execute(to_image(face[::8, ::8]), preset="strict", threshold=0.0, action="none")
    )
    assert small.height == 76 + 76 + 33 and frame(cell_of(small, 0, 1, 76)) == "clear"
    thin = shown(
        NudityAudit.execute(
            torch.zeros(2, 1, 900, 4), preset="strict", threshold=0.0, action="none"
        )
    )
    assert thin.size == (2 * (384 + 8) + 8, 100 + 13 + 39)


def test_a_second_opinion_and_its_agreement_are_in_the_report():
    face = to_image(data.astronaut())
    output = NudityAudit.execute(
        torch.cat([face, face * 0]),
        preset="faces",
        threshold=0.0,
        action="none",
        second_opinion="all",
    )
    report = report_of(output)
    assert [image["second"]["flagged"] for image in report["images"]] == [True, False]
    assert (
        report["summary"]["second_opinion"]["agreement"] == 1.0
        and report["summary"]["second_opinion"]["kappa"] == 1.0
    )
    strict = report_of(
        NudityAudit.execute(
            face, preset="strict", threshold=0.0, action="stop", second_opinion="faces"
        )
    )
    assert strict["images"][0]["second"]["flagged"] and not strict["images"][0]["flagged"]


STOPPED = (
    r"^Nudity Audit stopped this prompt: 1 of 2 flagged \(faces\)\. Change the prompt.*"
    r" \(First: picture 2, FACE_FEMALE 0\.\d\d\.\)$"
)


def test_stop_raises_with_a_sentence_that_says_what_and_where():
    face = to_image(data.astronaut())
    pair = torch.cat([torch.zeros_like(face), face])
    with pytest.raises(AuditStopped, match=STOPPED) as caught:
        NudityAudit.execute(pair, preset="faces", threshold=0.0, action="stop")
    assert "{" not in str(caught.value) and len(str(caught.value)) < 300
    assert NudityAudit.execute(face, preset="strict", threshold=0.0, action="stop").args[1] is True


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
        NudityAudit.execute(bad, preset="strict", threshold=0.0, action="none")


@pytest.mark.parametrize("action", ["none", "annotate", "stop"])
def test_no_pictures_pass_nothing(action):
    nothing = torch.zeros(0, 64, 64, 3)
    if action == "stop":
        with pytest.raises(AuditStopped, match="no picture was looked at"):
            NudityAudit.execute(nothing, preset="strict", threshold=0.0, action=action)
        return
    output = NudityAudit.execute(
        nothing, preset="strict", threshold=0.0, action=action, second_opinion="all"
    )
    assert output.args[1] is False and output.args[3].shape == (0, 64, 64)
    assert report_of(output)["summary"]["verdict"] == "no picture was looked at"
    assert output.args[4].startswith("**No picture was looked at**")


def test_classes_are_checked_before_anything_runs_and_again_when_it_does():
    assert NudityAudit.validate_inputs("strict") is True
    assert NudityAudit.validate_inputs("strict", "face_female=0.4, FACE_MALE") is True
    assert "no class 'FACE'. Perhaps FACE_" in NudityAudit.validate_inputs("strict", "FACE")
    assert "counts no class" in NudityAudit.validate_inputs("strict", " , ")
    assert "no audit preset 'nude'" in NudityAudit.validate_inputs("nude", None)
    assert NudityAudit.validate_inputs(None, "FACE") is True, "a linked preset is not known yet"
    with pytest.raises(ValueError, match="counts no class"):
        NudityAudit.execute(
            torch.zeros(1, 8, 8, 3), preset="strict", threshold=0.0, action="none", classes=" , "
        )


@pytest.mark.parametrize(
    "name", ["nine exposed 0.45, from paths", "UnlearnDiffAtk from paths", "nude"]
)
@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        (NudityAudit, ("preset", "second_opinion")),
        (AuditPromptSet, ("preset", "second_opinion")),
        (TrainSafetyLora, ("preview_preset",)),
        (TrainTaskLora, ("preview_preset",)),
    ],
)
def test_comfyui_takes_presets_by_their_former_names(node, inputs, name, monkeypatch):
    node_id = node.GET_SCHEMA().node_id
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node_id, node)
    given = {"prompts": next(iter(prompt_files()))} | dict.fromkeys(inputs, name)
    graph = {"1": {"class_type": node_id, "inputs": given}}
    _, errors, _ = asyncio.run(execution.validate_inputs("", graph, "1", {}))
    told = [each["details"] for each in errors if each["extra_info"].get("input_name") in inputs]
    assert bool(told) == (name == "nude") and all("there are strict, Unl" in each for each in told)


def test_values_far_out_of_range_are_cut_as_saveimage_cuts_them():
    large = spoilt(1e30)
    assert torch.equal(
        NudityAudit.execute(large, preset="strict", threshold=0.0, action="none").args[0], large
    )


def test_cancel_stops_a_long_audit():

    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        NudityAudit.execute(
            torch.zeros(4, 32, 32, 3), preset="strict", threshold=0.0, action="none"
        )
