"""What the door takes a file for, by its content: pictures to look at, words, or neither."""

import json
import struct
import zlib
from io import BytesIO

import av
import numpy as np
import pytest
from films import film, turn
from modular_safety_lora.audit.pictures import Unreadable
from modular_safety_lora.gates.files import LOOKS, is_looked_at, is_words, pictures_in
from PIL import Image
from safetensors.numpy import save

NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
RED = np.full((16, 24, 3), (200, 10, 10), np.uint8)


def encoded(kind: str, *frames: np.ndarray, **more) -> bytes:
    written = BytesIO()
    first, *rest = (Image.fromarray(each) for each in frames)
    told = {"save_all": True, "append_images": rest} if rest else {}
    first.save(written, kind, **told, **more)
    return written.getvalue()


def media(kind: str, codec: str, sound: bool = False) -> bytes:
    written = BytesIO()
    with av.open(written, "w", format=kind) as container:
        if sound:
            stream = container.add_stream(codec, rate=48_000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 48_000
            packets = stream.encode(frame)
        else:
            stream = container.add_stream(codec, rate=8)
            stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
            plain = np.zeros((32, 32, 3), np.uint8)
            packets = []
            for _ in range(8):
                packets += stream.encode(av.VideoFrame.from_ndarray(plain))
        container.mux([*packets, *stream.encode()])
    return written.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_a_picture_is_looked_at_whatever_its_name(kind):
    (found,) = pictures_in(encoded(kind, RED))
    assert found.shape == RED.shape and abs(found[8, 8].astype(int) - RED[8, 8]).max() < 40


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_every_frame_of_an_animation_is_looked_at(kind):
    frames = [np.full_like(RED, shade) for shade in (0, 60, 120, 180, 240)]
    assert len(list(pictures_in(encoded(kind, *frames)))) == len(frames)


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9")])
def test_every_frame_of_a_short_video_is_looked_at(kind, codec):
    assert len(list(pictures_in(media(kind, codec)))) == 8


def test_of_a_long_video_ever_fewer_frames_are_looked_at():
    looked = [place for place in range(8 * LOOKS) if is_looked_at(place)]
    assert looked[:LOOKS] == list(range(LOOKS))
    assert looked[LOOKS : 2 * LOOKS] == list(range(LOOKS, 3 * LOOKS, 2))
    assert looked[2 * LOOKS : 3 * LOOKS] == list(range(3 * LOOKS, 7 * LOOKS, 4))


TENSORS = save({"a": np.zeros(3, np.float32)})
HARMLESS = {
    "JSON": json.dumps({"a": "é"}).encode(),
    "text with a mark": b"\xef\xbb\xbfwords",
    "a page": b"<!doctype html><html><svg></svg></html>",
    "a page that is no XML": b"<!doctype html><!-- --><html lang=en><br><svg></svg>",
    "words in brackets": b"<svgs> of a list",
    "tensors": TENSORS,
    "nothing": b"",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_words_and_tensors_hold_no_picture(name):
    assert pictures_in(HARMLESS[name]) is None
    assert is_words(HARMLESS[name]) is (name != "tensors")


@pytest.mark.parametrize("kind", ["wav", "mp4"])
def test_sound_holds_no_picture(kind):
    assert pictures_in(wave() if kind == "wav" else media("mp4", "aac", sound=True)) is None


def wave() -> bytes:
    body = bytes(2_000)
    head = struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 16_000, 2, 16)
    inner = b"WAVEfmt " + head + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


PNG = encoded("PNG", RED)
SPACE = b'"http://www.w3.org/2000/svg"'
DRAWING = b'<?xml version="1.0"?><!-- -->\n<svg xmlns=' + SPACE + b"/>"
UNREADABLE = {
    "half a picture": encoded(
        "PNG", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    )[:3000],
    "a picture that is too large": PNG[:16]
    + struct.pack(">II", 20_000, 20_000)
    + PNG[24:29]
    + struct.pack(">I", zlib.crc32(b"IHDR" + struct.pack(">II", 20_000, 20_000) + PNG[24:29]))
    + PNG[33:],
    "a drawing": DRAWING,
    "a drawing with a mark": b"\xef\xbb\xbf\n" + DRAWING,
    "a drawing that speaks of a page": b"<!--<html>-->" + DRAWING[21:],
    "a drawing that holds a page": b"<svg xmlns=" + SPACE + b"><html/></svg>",
    "a drawing that says it is a page": b"<!DOCTYPE html><!--<html>-->" + DRAWING[21:],
    "a drawing in a language": b'<?xml version="1.0" encoding="gbk"?><!--<html>-->' + DRAWING[21:],
    "a drawing with a prefix": b"<s:svg xmlns:s=" + SPACE + b"/>",
    "a drawing in an element": b"<a><svg xmlns=" + SPACE + b"/></a>",
    "a drawing in UTF-16": DRAWING.decode().encode("utf-16"),
    "an icon": encoded("ICO", RED, sizes=[(16, 16), (24, 24)]),
    "an archive": b"PK\x03\x04" + bytes(100),
    "an EXR": b"\x76\x2f\x31\x01" + bytes(100),
    "a 3D file": b"glTF\x02\0\0\0" + bytes(100),
    "compressed": zlib.compress(PNG),
    "noise": NOISE.tobytes(),
    "zeros": bytes(1_000),
    "tensors that say too much": (10_000).to_bytes(8, "little") + b"{}",
    "tensors whose head is no JSON": (4).to_bytes(8, "little") + b"{\xff\xff\xff" + PNG,
    "half a video": media("mp4", "libx264")[:900],
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_looked_at_is_no_clean_result(name):
    with pytest.raises(Unreadable):
        assert pictures_in(UNREADABLE[name]) is not None, "it was taken for words"
        list(pictures_in(UNREADABLE[name]))
    assert not is_words(UNREADABLE[name])


@pytest.mark.parametrize("before", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_a_picture_written_as_text_is_a_picture(before):
    portable = b"P3\n2 1\n255\n255 0 0 0 255 0\n"
    if before:
        assert is_words(before + portable), "no viewer takes this for a picture"
    else:
        (found,) = pictures_in(portable)
        assert found.shape == (1, 2, 3) and not is_words(portable)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A film of noise in two containers: whole bytes by suffix."""
    folder = tmp_path_factory.mktemp("filmed")
    noise = np.random.default_rng(0).integers(0, 60, (64, 96, 3), dtype=np.uint8)
    paths = {each: film(folder / f"film{each}", lambda _: noise) for each in (".mp4", ".webm")}
    return {suffix: path.read_bytes() for suffix, path in paths.items()}


@pytest.mark.parametrize("part", [0.5, 0.9])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_video_that_is_cut_off_is_no_clean_result(filmed, suffix, part):
    content = filmed[suffix]
    with pytest.raises(Unreadable):
        list(pictures_in(content[: int(part * len(content))]))


def test_a_video_with_a_hole_is_no_clean_result(filmed):
    content, at = filmed[".mp4"], len(filmed[".mp4"]) // 2
    hole = len(content) // 8
    with pytest.raises(Unreadable):
        list(pictures_in(content[:at] + bytes(hole) + content[at + hole :]))


def test_a_turned_video_is_looked_at_upright(tmp_path):
    path = film(tmp_path / "turned.mp4", lambda _: np.zeros((64, 96, 3), np.uint8), seconds=1.0)
    turn(path, 96)
    assert {each.shape for each in pictures_in(path.read_bytes())} == {(96, 64, 3)}
