"""What is handed out in the place of a flagged file, and a file's bytes as they were looked at."""

from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from server import web

from ..audit.pictures import Unreadable, picture_in
from ..drawing.notice import UNKNOWN, notice
from .files import pictures_in
from .keeper import DONE, hidden
from .known import Part
from .seen import Finding

HEADER = "X-Modular-Safety-LoRA"
SIDE = 512  # of a notice for what has no size
SECONDS = 2  # of a notice for a video
# of the answer in whose place another stands: they are of the body that it had
OF_THE_BODY = ("Content-Length", "Content-Encoding", "Content-Type", "ETag", "Last-Modified")


def instead(content: bytes, finding: Finding, how: str, preset: str) -> tuple[bytes, str, int]:
    """Bytes, type and status in the place of a flagged file's; `how` as the operator wishes."""
    if how == "stop":
        words = f"This file was {said(finding, how, preset)}."
        return words.encode(), "text/plain", 403
    shown = substitute(content, how, known=not finding.reason)
    if not finding.reason and picture_in(content) is None:
        return as_video(shown), "video/mp4", 200
    return as_png(shown), "image/png", 200


def said(finding: Finding, how: str, preset: str) -> str:
    """Why something else is handed out, in a line that a header can hold."""
    why = finding.reason or f"preset {preset} flags it"
    line = f"{'kept back' if how == 'stop' else DONE[how]}: {why}"
    return " ".join(line.encode("ascii", "replace").decode().split())


def substitute(content: bytes, how: str, known: bool = True) -> np.ndarray:
    """What is shown for a file, uint8 (H, W, 3 or 4), as large as its first picture."""
    if not known:
        return notice(SIDE, SIDE, UNKNOWN)
    try:
        pictures = pictures_in(content)
        first = next(pictures) if pictures is not None else None
    except (Unreadable, StopIteration):
        first = None
    if first is None:
        return notice(SIDE, SIDE)
    frames = torch.from_numpy(first.astype(np.float32) / 255.0)[None]
    return (hidden(frames, how)[0] * 255.0).round().to(torch.uint8).numpy()


def as_png(picture: np.ndarray) -> bytes:
    written = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(written, "PNG", compress_level=4)
    return written.getvalue()


def as_video(picture: np.ndarray) -> bytes:
    """A still video, so that what plays videos shows it."""
    import av

    height, width = (max(2, side // 2 * 2) for side in picture.shape[:2])  # H.264 wants even sides
    still = Image.fromarray(np.ascontiguousarray(picture[..., :3])).resize((width, height))
    written = BytesIO()
    with av.open(written, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        kind: Any = av.VideoFrame
        for _ in range(2 * SECONDS):
            container.mux(stream.encode(kind.from_image(still)))
        container.mux(stream.encode())
    return written.getvalue()


def with_body(
    request: web.BaseRequest,
    original: web.StreamResponse,
    content: bytes | Part,
    kind: str,
    tag: str,
) -> web.Response:
    """An answer with a file's bytes and the head of the one that would have sent the file.

    It knows ranges, by which browsers move in videos, and what the client has already. Raises
    what a known file's part raises.
    """
    headers = {name: value for name, value in original.headers.items() if name not in OF_THE_BODY}
    headers |= {"Content-Type": kind, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
    wanted = request.if_none_match or ()
    if any(each.value in (tag, "*") for each in wanted):
        return web.Response(status=304, headers=headers)
    asked = _range(request)
    if asked is None or (asked.start is None and asked.stop is None) or original.status != 200:
        return web.Response(status=original.status, body=content[:], headers=headers)
    start, stop, _ = asked.indices(len(content))
    if start >= stop:
        headers["Content-Range"] = f"bytes */{len(content)}"
        return web.Response(status=416, headers=headers)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return web.Response(status=206, body=content[start:stop], headers=headers)


def _range(request: web.BaseRequest) -> slice | None:
    """The part that is asked for; None for all, as for several parts or none that can be read."""
    try:
        return request.http_range if "Range" in request.headers else None
    except ValueError:
        return None
