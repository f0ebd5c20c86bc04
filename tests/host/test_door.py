"""The door: what it hands out unchanged, once looked at, and what stands in a file's place."""

import json
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
import requests
from comfy.cli_args import args
from gated import FACE, HARMLESS, House, encoded, film, has_face, housed, png
from modular_safety_lora.drawing.notice import notice
from modular_safety_lora.evidence.log import EvidenceError
from modular_safety_lora.gates import verdicts
from modular_safety_lora.gates.answers import HEADER
from PIL import Image
from safetensors.numpy import save


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with housed(tmp_path_factory.mktemp("house")) as running:
        yield running


@pytest.fixture
def heard():
    found: list[verdicts.Verdict] = []
    verdicts.listeners.append(found.append)
    yield found
    verdicts.listeners.remove(found.append)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


CONTENT = {
    "a picture": png(HARMLESS),
    "a video": film([HARMLESS] * 4),
    "JSON": json.dumps({"nodes": [1] * 1000}).encode(),
    "a latent": save({"latent_tensor": np.zeros((1, 4, 8, 8), np.float32)}),
}


@pytest.mark.parametrize("name", CONTENT)
def test_what_is_not_flagged_leaves_byte_for_byte(house, name):
    file = house.put(CONTENT[name], f"{name}.bin")
    whole = house.get("/view", filename=file)
    assert whole.content == CONTENT[name] and HEADER not in whole.headers
    part = house.get("/view", {"Range": "bytes=10-19"}, filename=file)
    assert (part.status_code, part.content) == (206, CONTENT[name][10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(CONTENT[name])}"
    last = house.get("/view", {"Range": "bytes=-5"}, filename=file)
    assert last.content == CONTENT[name][-5:]
    beyond = house.get("/view", {"Range": "bytes=99999999-"}, filename=file)
    assert (beyond.status_code, beyond.content) == (416, b"")
    for unknown in ("bytes=0-1,5-6", "bytes=9-1", "lines=1"):  # may be passed over: all of it
        odd = house.get("/view", {"Range": unknown}, filename=file)
        assert (odd.status_code, odd.content) == (200, CONTENT[name]), unknown
    kept = house.get("/view", {"If-None-Match": whole.headers["ETag"]}, filename=file)
    assert (kept.status_code, kept.content) == (304, b"")
    head = requests.head(f"{house.url}/view", params={"filename": file}, timeout=60)
    assert head.ok and not head.content


def test_each_content_is_looked_at_once(house, heard):
    content = png(np.ascontiguousarray(HARMLESS[:, ::-1]))
    file = house.put(content)
    for _ in range(3):
        assert house.get("/view", filename=file).content == content
    assert [(each.where, each.done) for each in heard] == [("door", "passed")]
    assert house.view(content, "again.png", "temp") == content and len(heard) == 1


def test_a_flagged_picture_gives_a_notice_of_its_size_and_says_so(house, heard):
    face = np.ascontiguousarray(FACE[:200])
    answer = house.get("/view", filename=house.put(encoded(face, "JPEG"), "a.jpg"))
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "image/png"
    assert answer.headers[HEADER] == "withheld: preset faces flags it"
    assert answer.headers["Cache-Control"] == "no-store"
    assert np.array_equal(pixels(answer.content), notice(224, 200))
    (told,) = heard
    assert told.flagged and told.done == "withhold" and told.counts["FACE_FEMALE"] == 1


def test_a_flagged_video_gives_a_video(house):
    answer = house.get("/view", filename=house.put(film([HARMLESS, FACE]), "flagged.mp4"))
    assert answer.headers["Content-Type"] == "video/mp4" and b"ftyp" in answer.content[:16]
    assert answer.headers[HEADER].startswith("withheld")


def test_what_cannot_be_looked_at_is_withheld_in_words(house, heard):
    answer = house.get("/view", filename=house.put(png(HARMLESS)[:-9000], "half.png"))
    assert answer.headers[HEADER].startswith("withheld: ") and heard[0].reason
    assert pixels(answer.content).shape == (512, 512, 3)


def test_the_frontend_and_the_api_work(house):
    assert "<html" in house.get("/").text.lower()
    assert house.get("/prompt").json()["exec_info"] == {"queue_remaining": 0}
    assert house.get("/view", filename="missing.png").status_code == 404
    installed = next(house.folder.parent.rglob("nothing"), None)
    assert installed is None
    icons = house.get("/assets/images/comfy-logo-single.svg")
    assert icons.ok and b"<svg" in icons.content and HEADER not in icons.headers


@pytest.mark.parametrize("how", ["blur", "black", "stop"])
def test_what_is_done_is_the_operators_choice(tmp_path, how):
    with housed(tmp_path, flagged=how) as house:
        answer = house.get("/view", filename=house.put(png(FACE)))
        if how == "stop":
            assert (answer.status_code, answer.headers[HEADER]) == (
                403,
                "kept back: preset faces flags it",
            )
            assert not house.sent((1, b"\0\0\0\2" + png(FACE)))
        else:
            shown = pixels(answer.content)
            assert shown.shape == FACE.shape and not has_face(shown)
            assert shown.any() is np.bool_(how == "blur")


def test_with_several_users_a_browser_names_none_with_a_picture(house, heard, monkeypatch):
    """A page's pictures are asked for without the header by which ComfyUI knows users."""
    monkeypatch.setattr(args, "multi_user", True)
    monkeypatch.setattr(house.server.user_manager, "users", {"anna_1": "anna"})
    for place, told in enumerate(({}, {"comfy-user": "anna_1"}, {"comfy-user": "nobody"})):
        content = png(np.ascontiguousarray(HARMLESS[20 + place :]))
        assert house.get("/view", told, filename=house.put(content)).content == content
        face = png(np.ascontiguousarray(FACE[: 200 - place]))
        assert HEADER in house.get("/view", told, filename=house.put(face)).headers
    assert [each.user for each in heard] == ["", "", "anna_1", "anna_1", "", ""]


def test_findings_outlive_the_server(tmp_path, heard):
    for _ in range(2):
        with housed(tmp_path) as house:
            assert house.view(png(HARMLESS), "a.png") == png(HARMLESS)
    assert len(heard) == 1
    file = tmp_path / "user" / "__modular_safety_lora" / "looked-at.sqlite"
    assert file.is_file()


def test_a_listener_that_fails_closes(house, monkeypatch):
    def full(verdict):
        raise OSError("the disk is full")

    monkeypatch.setattr(verdicts, "listeners", [full])
    content = png(np.ascontiguousarray(HARMLESS[::-1]))
    file = house.put(content)
    assert house.get("/view", filename=file).status_code == 500
    assert house.get("/view", filename=file).status_code == 500, "it was looked at, and not told"

    def unrecorded(verdict):
        raise EvidenceError("The log can't be written.")

    monkeypatch.setattr(verdicts, "listeners", [unrecorded])
    answer = house.get("/view", filename=file)
    assert (answer.status_code, answer.text) == (503, "The log can't be written.")
    told: list[verdicts.Verdict] = []
    monkeypatch.setattr(verdicts, "listeners", [told.append])
    assert house.get("/view", filename=file).content == content
    assert [each.digest for each in told] == [sha256(content).hexdigest()]


def test_what_was_told_to_nobody_is_told_once_somebody_listens(house, monkeypatch):
    monkeypatch.setattr(verdicts, "listeners", [])
    content = png(np.ascontiguousarray(HARMLESS[10:]))
    assert house.view(content, "before.png") == content
    told: list[verdicts.Verdict] = []
    monkeypatch.setattr(verdicts, "listeners", [told.append])
    for _ in range(2):
        assert house.get("/view", filename="before.png").content == content
    assert len(told) == 1


def closed(house: House) -> None:
    answer = house.get("/view", filename=house.put(png(HARMLESS)))
    assert "No picture is shown until it is corrected" in answer.headers[HEADER]
    assert pixels(answer.content).shape == (512, 512, 3)
    assert "<html" in house.get("/").text.lower() and house.get("/prompt").ok
    assert not house.sent((1, b"\0\0\0\2" + png(HARMLESS)))


@pytest.mark.parametrize(
    "settings", [{"require_audt": True}, {"require_audit": {"preset": "fces"}}]
)
def test_a_mistake_in_the_settings_closes_the_door(tmp_path, settings):
    with housed(tmp_path, settings=settings) as house:
        closed(house)


def test_a_detector_that_is_not_there_closes_the_door(tmp_path, caplog):
    (tmp_path / "user").mkdir()
    rule = {"detector": "mine", "thresholds": {"RED": 0.5}}
    settings = {
        "detectors": {"mine": {"kind": "yolo", "file": "mine.onnx", "classes": ["RED"]}},
        "audit_presets": {"red": rule},
        "require_audit": {"preset": "red"},
    }
    with housed(tmp_path, settings=settings) as house:
        answer = house.get("/view", filename=house.put(png(HARMLESS)))
        assert "there is no such ONNX file" in answer.headers[HEADER]
        assert pixels(answer.content).shape == (512, 512, 3)
    assert "mine.onnx: there is no such ONNX file. Until then no picture is shown" in caplog.text
