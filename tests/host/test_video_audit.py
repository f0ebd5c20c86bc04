"""Audit Video: what flows on, when something was found, and what it refuses."""

import io as streams
import json
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from auditing import report_of, to_image
from comfy_api.latest import InputImpl, Types
from films import CUP, FACE, faces, film
from modular_safety_lora.audit.films import described, open_film
from modular_safety_lora.audit.pictures import Unreadable
from modular_safety_lora.nodes.nudity_audit import AuditStopped, NudityAudit
from modular_safety_lora.nodes.video_audit import AuditVideo
from PIL import Image

FACES = {"preset": "faces"}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return faces(tmp_path_factory.mktemp("films") / "face.mp4", (2, 4), sound=True, rate=5)


def looked(source) -> list[float]:
    """The times at which a film shows a face, of all its frames."""
    output = AuditVideo.execute(source, preset="faces", every=0.0)
    return [each["time"] for each in report_of(output)["images"] if each["flagged"]]


def test_a_video_is_told_by_time_and_goes_on_as_it_is(path):
    video = InputImpl.VideoFromFile(str(path))
    output = AuditVideo.execute(video, **FACES)
    same, passed, report, sheet, words = output.args
    summary = json.loads(report)["summary"]
    assert same is video and passed is False and summary["flagged_at"] == [[2, 3]]
    assert "Flagged at 0:02-0:03." in words and sheet.shape[0] == 1 and sheet.std() > 0.1
    (shown,) = output.ui["images"]
    picture = Image.open(Path(folder_paths.get_temp_directory(), shown["filename"]))
    assert abs(picture.width - sheet.shape[2]) <= 1
    assert AuditVideo.execute(video, preset="strict").args[1] is True
    with pytest.raises(AuditStopped, match="2 of 7 flagged at 0:02-0:03"):
        AuditVideo.execute(video, **FACES, action="stop")


@pytest.mark.parametrize("action", [pytest.param("blur", marks=pytest.mark.long), "black"])
def test_flagged_frames_are_hidden_between_the_looks_too(path, action):
    video = InputImpl.VideoFromFile(str(path))
    assert looked(video) == pytest.approx(np.arange(2, 4, 0.2).round(1))
    changed = AuditVideo.execute(video, **FACES, action=action).args[0]
    assert looked(changed) == []
    parts, before = changed.get_components(), video.get_components()
    assert parts.images.shape == before.images.shape and parts.frame_rate == before.frame_rate
    assert parts.audio["waveform"].shape[-1] == before.audio["waveform"].shape[-1]
    apart = (parts.images - before.images).abs().mean(dim=(1, 2, 3))
    hidden = [place for place, each in enumerate(apart) if each > 0.05]
    assert hidden == list(range(6, 20)), "from after the clear look at 1 s to before that at 4 s"


@pytest.mark.long
def test_what_was_cut_off_by_a_node_is_not_looked_at_and_not_passed_on(path):
    video = InputImpl.VideoFromFile(str(path), start_time=3, duration=2)
    output = AuditVideo.execute(video, **FACES, action="black")
    assert report_of(output)["summary"]["flagged_at"] == [[3, 3]]
    parts = output.args[0].get_components()
    assert parts.images.shape[0] == 10 and parts.images[:5].max() < 0.1
    assert looked(InputImpl.VideoFromFile(output.args[0].get_stream_source())) == []
    assert AuditVideo.execute(InputImpl.VideoFromFile(str(path), duration=1.5), **FACES).args[1]


def test_videos_of_pictures_and_of_memory(path):
    pictures = torch.cat([to_image(CUP), to_image(FACE)])
    made = InputImpl.VideoFromComponents(Types.VideoComponents(images=pictures, frame_rate=1))
    output = AuditVideo.execute(made, **FACES, action="black")
    assert report_of(output)["summary"]["flagged_at"] == [[1, 1]]
    memory = InputImpl.VideoFromFile(streams.BytesIO(path.read_bytes()))
    assert report_of(AuditVideo.execute(memory, **FACES))["summary"]["flagged_at"] == [[2, 3]]


def test_a_damaged_video_and_a_wrong_preset_end_the_run(path, tmp_path):
    cut = tmp_path / "cut.mkv"
    film(cut, lambda at: CUP)
    cut.write_bytes(cut.read_bytes()[:-4000])
    with pytest.raises(Unreadable, match="cut off"):
        AuditVideo.execute(InputImpl.VideoFromFile(str(cut)), **FACES)
    assert "no audit preset" in AuditVideo.validate_inputs("nude")
    assert AuditVideo.validate_inputs("strict") is True
    assert open_film(path) and described(path).seconds == pytest.approx(6, abs=0.2)


def test_a_preset_that_asks_a_second_detector_says_so_on_the_nodes(path):
    video = InputImpl.VideoFromFile(str(path))
    output = AuditVideo.execute(video, preset="photos and drawings", every=3.0)
    asked = report_of(output)["summary"]["asked"]
    assert (asked["pictures"], asked["detector"], output.args[1]) == (3, "nsfwjs", True)
    output = NudityAudit.execute(to_image(FACE), preset="photos and drawings")
    assert report_of(output)["summary"]["asked"]["pictures"] == 1
    assert "nsfwjs was asked about 1 of 1 picture" in output.args[4]


def test_small_detections_do_not_count():
    face = to_image(FACE)
    for least, passed in ((0.0, False), (0.9, True)):
        output = NudityAudit.execute(face, preset="faces", min_size=least, action="black")
        assert output.args[1] is passed and torch.equal(output.args[0], face) is passed
