"""What a picture's file says of its audit: read back, tied to its pixels, never guessed."""

import json
from fractions import Fraction

import cli
import numpy as np
import pytest
from modular_safety_lora.provenance import certificates, claims
from modular_safety_lora.provenance.reading import LOSSY, NO_VERDICT, OTHER, PARTLY, inspect
from modular_safety_lora.provenance.record import (
    KEY,
    Looks,
    RecordError,
    pixels_sha256,
    read,
    record,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from told import BASE, MODELS, OTHERS, PIXELS, RULES, SAFETY, TASK, looked, told, written


@pytest.mark.parametrize("name", ["png", "webp"])
def test_a_lossless_file_has_the_verdict_of_its_own_pixels(tmp_path, name):
    found = inspect(written(tmp_path, name, told()))
    assert found["fault"] is None and found["state"] == "picture, not flagged"
    for digest in (SAFETY, TASK, BASE, "d" * 64):
        assert digest in f"{found['made_by']} {found['audit']}"
    assert found["signed"].startswith("no: whoever had this file")
    assert "preset strict" in found["audit"] and "intact" in found["safety_lora"]


@pytest.mark.parametrize("name", ["png", "webp"])
def test_the_verdict_of_another_picture_is_none(tmp_path, name):
    found = inspect(written(tmp_path, name, told(), OTHERS))
    assert found["fault"] == OTHER and "no verdict" in found["state"]


def test_a_flagged_picture_stays_flagged_whatever_another_audit_says(tmp_path):
    both = (looked(by="require_audit"), looked(flagged=True))
    found = inspect(written(tmp_path, "png", told(both)))
    assert found["state"] == "picture, flagged" and found["fault"] == "an audit flagged it (blur)"
    assert found["detections"] == "A 2" and found["flagged"] == "1 of 2 looks"
    low = looked(thresholds={"A": 0.25, "B": 1.0}, min_size=0.1)
    assert (
        "strict (A from 0.25, B from 1, size from 0.1)"
        in (inspect(written(tmp_path, "png", told((low,))))["audit"])
    )
    batch = told((looked(),), (looked(OTHERS, flagged=True),))
    assert inspect(written(tmp_path, "png", batch))["state"] == "picture, not flagged"
    assert inspect(written(tmp_path, "png", batch, OTHERS))["state"] == "picture, flagged"


@pytest.mark.parametrize("name", ["jpeg", "lossy.webp"])
def test_of_a_lossy_file_nobody_knows_whose_the_verdict_is_without_a_claim(tmp_path, name):
    path = written(tmp_path, name, told())
    assert inspect(path)["fault"] == LOSSY
    kind = "JPEG" if name == "jpeg" else "WEBP"
    path.write_bytes(claims.sign(path.read_bytes(), kind, told(), certificates.trial()))
    found = inspect(path)
    assert found["fault"] is None and found["tied"] == "by the signed claim"


@pytest.mark.parametrize(("name", "kind", "fault"), [("jpeg", "JPEG", LOSSY), ("png", "PNG", None)])
def test_a_claim_of_somebody_else_vouches_for_no_verdict_beside_it(
    tmp_path, monkeypatch, name, kind, fault
):
    path = written(tmp_path, name, told())
    unlike = claims._manifest(told(), "")
    unlike["assertions"] = unlike["assertions"][:1]
    monkeypatch.setattr(claims, "_manifest", lambda *_: unlike)
    monkeypatch.setattr(claims, "_record", lambda _: (told(), []))  # `sign` reads it back
    signed = claims.sign(path.read_bytes(), kind, told(), certificates.trial())
    monkeypatch.undo()
    path.write_bytes(signed)
    found = inspect(path)
    assert found["fault"] == fault and "by the signed claim" not in found["tied"]
    assert found["signed"].endswith("It holds no verdict.")


def test_what_holds_no_verdict_or_none_that_can_be_read_is_never_clean(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    assert inspect(path)["fault"] == NO_VERDICT
    empty = record([()], MODELS, "none")
    assert inspect(written(tmp_path, "png", empty))["fault"] == NO_VERDICT
    for text in ("", "{", "[]", json.dumps({**told().plain(), "form": 2}), '{"form": 1}'):
        assert inspect(written(tmp_path, "png", text))["fault"], text
    path.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert inspect(path)["state"] == "unreadable"
    assert inspect(tmp_path / "missing.png")["fault"]
    twice = PngInfo()
    twice.add_text(KEY, json.dumps(told().plain()))
    twice.add(b"comf", KEY.encode() + b"\0{}", after_idat=True)
    Image.fromarray(PIXELS).save(path, pnginfo=twice)
    assert "it holds 2 verdicts" in inspect(path)["fault"]


def test_all_pictures_of_an_animation_need_a_verdict(tmp_path):
    path, chunks = tmp_path / "a.png", PngInfo()
    for looks, fault in (((looked(),), PARTLY), ((looked(), looked(OTHERS)), None)):
        chunks = PngInfo()
        text = json.dumps(told(*((each,) for each in looks)).plain())
        chunks.add(b"comf", f"{KEY}\0{text}".encode(), after_idat=True)  # as Save Animated PNG
        frames = [Image.fromarray(each) for each in (PIXELS, OTHERS)]
        frames[0].save(path, save_all=True, append_images=frames[1:], pnginfo=chunks)
        assert inspect(path)["fault"] == fault


def test_sixteen_bits_are_rounded_so_nobody_can_compare_them(tmp_path):
    path = written(tmp_path, "png", told())
    content = path.read_bytes()
    assert content[24] == 8
    import av

    frame = av.VideoFrame.from_ndarray(PIXELS.astype(np.uint16) * 257, format="rgb48le")
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = 32, 24, "rgb48be"
    codec.time_base = Fraction(1)
    deep = b"".join(bytes(each) for each in codec.encode(frame.reformat(format="rgb48be")))
    end = content.index(b"IDAT") - 4
    path.write_bytes(deep[:33] + content[33:end] + deep[33:])  # the chunks of the text
    assert inspect(path)["fault"] == LOSSY


def test_what_is_kept_is_bounded_and_the_last_look_of_the_same_rules_counts():
    kept = Looks(most=2)
    for pixels in (PIXELS, OTHERS, PIXELS[:, ::-1].copy()):
        kept.keep(RULES, [looked(pixels).look])
    assert kept.of(pixels_sha256(PIXELS)) == ()
    kept.keep(RULES, [looked(OTHERS, flagged=True).look])
    (last,) = kept.of(pixels_sha256(OTHERS))
    assert last.look.flagged
    strict = RULES.model_copy(update={"by": "require_audit"})
    kept.keep(strict, [looked(OTHERS).look])
    assert [each.look.flagged for each in kept.of(pixels_sha256(OTHERS))] == [True, False]
    assert kept.of(pixels_sha256(PIXELS[:, ::-1].copy())) == (), "two looks are kept"


def test_a_preset_with_another_threshold_is_another_rule():
    kept, high = Looks(), RULES.model_copy(update={"thresholds": {"A": 1.0}})
    kept.keep(RULES, [looked(flagged=True).look])
    kept.keep(high, [looked().look])
    assert [each.look.flagged for each in kept.of(pixels_sha256(PIXELS))] == [True, False]


def test_a_record_that_says_anything_else_is_refused():
    plain = told().plain()
    assert read(json.dumps(plain)) == told()
    for broken in (
        {**plain, "more": 1},
        {**plain, "safety_lora": "fine"},
        {**plain, "models": [{**plain["models"][0], "base_sha256": "short"}]},
    ):
        with pytest.raises(RecordError):
            read(json.dumps(broken))


def test_the_verb_ends_with_1_for_all_but_a_picture_that_passed(tmp_path):
    passed = written(tmp_path, "png", told())
    done = cli.run("inspect", passed)
    assert done.returncode == 0 and f"checkpoint base.safetensors ({BASE})" in done.stdout
    flagged = written(tmp_path, "webp", told((looked(flagged=True),)))
    assert cli.run("inspect", passed, flagged, "--json").returncode == 1
