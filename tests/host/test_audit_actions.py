"""The actions of the audit node: flagged boxes are covered wholly, and nothing else is changed."""

import numpy as np
import pytest
import torch
from auditing import report_of, to_image
from hypothesis import given, settings
from hypothesis import strategies as st
from modular_safety_lora.audit import censor
from modular_safety_lora.drawing.notice import notice
from modular_safety_lora.nodes.nudity_audit import NudityAudit
from modular_safety_lora.options.choices import ChoiceError
from PIL import Image
from skimage import data


@pytest.mark.parametrize("action", ["annotate", "blur", "black"])
def test_actions_change_flagged_boxes_and_nothing_else(action):
    face = data.astronaut()
    images = torch.cat([to_image(face), to_image(np.zeros_like(face))])
    output = NudityAudit.execute(images, preset="faces", threshold=0.0, action=action)
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
        assert (
            NudityAudit.execute(out, preset="faces", threshold=0.0, action="none").args[1] is True
        ), "NudeNet still sees the face"


def test_a_withheld_picture_is_a_notice_and_the_others_go_on():
    face = data.astronaut()
    images = torch.cat([to_image(face), to_image(np.zeros_like(face))])
    output = NudityAudit.execute(images, preset="faces", threshold=0.0, action="withhold")
    (withheld, other), passed = output.args[0], output.args[1]
    assert not passed and report_of(output)["summary"]["flagged"] == 1
    assert torch.equal(other, images[1]) and torch.equal(images[0], to_image(face)[0])
    shown = (withheld * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(shown, notice(*reversed(shown.shape[:2])))


@pytest.mark.parametrize("action", ["annotate", "blur", "black", "withhold"])
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
        if action == "withhold":
            assert (after - before).abs().amax(dim=2).mean() > 0.1, "all of it is hidden"
        elif channels == 4:
            assert torch.equal(after[..., 3], before[..., 3]) == (action == "annotate")
            assert torch.equal(after[where == 0], before[where == 0]) or action == "annotate"
        assert not torch.equal(after, before)


@pytest.mark.parametrize("action", ["none", "annotate", "blur", "black", "stop"])
def test_pictures_are_not_copied_when_nothing_is_flagged(action):
    images = to_image(data.astronaut())
    assert (
        NudityAudit.execute(images, preset="strict", threshold=0.0, action=action).args[0] is images
    )


@pytest.mark.parametrize("action", ["blur", "black"])
def test_what_only_the_transparency_shows_is_hidden_too(action):
    grey = np.asarray(Image.fromarray(data.astronaut()).convert("L"))
    images = to_image(np.dstack([np.zeros((512, 512, 3), np.uint8), 255 - grey]))
    output = NudityAudit.execute(images, preset="faces", threshold=0.0, action=action)
    assert output.args[1] is False and output.args[0].shape == images.shape
    assert (
        NudityAudit.execute(output.args[0], preset="faces", threshold=0.0, action="none").args[1]
        is True
    )


@pytest.mark.parametrize("action", ["STOP", "blurr", ""])
def test_an_action_that_a_link_brought_is_refused_if_there_is_none(action):
    with pytest.raises(ChoiceError, match="action is .*; it must be one of none, annotate, blur"):
        NudityAudit.execute(
            to_image(data.astronaut()), preset="faces", threshold=0.0, action=action
        )


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
