"""What is in a file that leaves: pictures to look at, or none. The content tells, never the name.

A file that is neither known to hold no picture nor can be looked at is Unreadable.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from io import BytesIO
from xml.parsers import expat

import numpy as np

from ..audit.films import described
from ..audit.pictures import Unreadable, picture_in

LOOKS = 240  # frames that are all looked at
LARGEST = 2**30  # bytes
# Pillow's names of what browsers show and what nodes write; icons hold several pictures
PICTURES = frozenset(
    ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", "QOI"]
)
# FFmpeg's names of containers of sound; no playlist, which could name other files or addresses
SOUND = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mp3", "flac", "ogg", "wav", "aac"})
_SVG = re.compile(rb"<(?:[^\s<>/]+:)?svg[\s>/]")  # XML's names may have a prefix
_OPTIONS = {"format_whitelist": ",".join((*SOUND, "avi")), "protocol_whitelist": "file"}


def pictures_in(content: bytes) -> Iterator[np.ndarray] | None:
    """The pictures, uint8 (H, W, 3 or 4), of a file; None for text, tensors and sound.

    All frames of an animation up to LOOKS, then as many evenly spread; of a video LOOKS frames,
    then LOOKS that are every second one, LOOKS every fourth, and so on, and the last.

    Raises Unreadable, also while it is being read.
    """
    if len(content) > LARGEST:
        raise Unreadable(f"larger than the limit of {LARGEST} bytes")
    if not content:
        return None
    found = picture_in(content, frames=LOOKS)
    if found is not None:
        opened, frames = found
        if opened.format not in PICTURES:
            raise Unreadable(f"{opened.format} files are not looked at")
        return (picture for _, picture in frames)
    if _is_text(content):
        if _is_drawing(content):
            raise Unreadable("a drawing (SVG) is not looked at, and may hold a picture")
        return None
    return None if _is_tensors(content) else _video(content)


def is_words(content: bytes) -> bool:
    """Whether all of it is text, and neither a drawing nor a picture that is written as text."""
    return _is_text(content) and not _is_drawing(content) and not _is_picture(content)


def _is_picture(content: bytes) -> bool:
    try:
        return picture_in(content) is not None
    except Unreadable:
        return True


def _is_text(content: bytes) -> bool:
    """UTF-8 without a NUL."""
    if b"\0" in content:
        return False
    if content.isascii():
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_drawing(content: bytes) -> bool:
    """UTF-8 with an element `<svg>`, unless its first element is `<html>`: that is a page."""
    text = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.startswith(b"<") or not _SVG.search(text.lower()):
        return False
    return _first_element(text.decode()).lower() != "html"


def _first_element(text: str) -> str:
    """Its name, without a prefix; where it is not as XML wants it, that of the first `<html`.

    What no parser of XML can read is no drawing to a browser. It is a string, so that no encoding
    that the text claims is believed.
    """
    found: list[str] = []

    def started(name: str, _: object) -> None:
        found.append(name.split(":")[-1])
        raise StopIteration

    parser = expat.ParserCreate()
    parser.StartElementHandler = started
    with contextlib.suppress(expat.ExpatError, StopIteration):
        parser.Parse(text, True)
    return found[0] if found else "html" if "<html" in text.lower() else ""


def _is_tensors(content: bytes) -> bool:
    """Whether it is a safetensors file: a length, a header of so many bytes, and tensors."""
    end = 8 + int.from_bytes(content[:8], "little")
    if not (content[8:9] == b"{" and end <= len(content)):
        return False
    try:
        return isinstance(json.loads(content[8:end]), dict)
    except ValueError:
        return False


def _video(content: bytes) -> Iterator[np.ndarray] | None:
    """The frames of a video; None for a container of sound alone."""
    import av  # ComfyUI requires it

    try:
        with av.open(BytesIO(content), options=_OPTIONS) as container:
            kinds = {stream.type for stream in container.streams}
            name = container.format.name
    except (av.FFmpegError, ValueError) as error:
        raise Unreadable("not a kind of file that can be looked at") from error
    if name in SOUND and kinds == {"audio"}:
        return None
    film = described(BytesIO(content)) if kinds <= {"video", "audio"} else None
    if film is None:
        raise Unreadable("not a kind of file that can be looked at")
    return (look.picture for look in film.looks(0.0, chosen=is_looked_at))


def is_looked_at(place: int) -> bool:
    """Whether a video's frame is one of those that are looked at.

    LOOKS in a row, LOOKS that are every second one, LOOKS every fourth, and so on.
    """
    step = 1
    while place >= LOOKS * step:
        place -= LOOKS * step
        step *= 2
    return place % step == 0
