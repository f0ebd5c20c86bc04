"""Packets of a video in, the frames to look at out, and whether it was all there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .pictures import Unreadable, check_size

if TYPE_CHECKING:
    import av

GAP = 0.5  # seconds between two frames of Matroska, beyond which some are missing
SLACK = 0.25  # seconds that a film may be shorter than it says: streams end at different times


class Look(NamedTuple):
    """A frame that is looked at: its number, its time in seconds, uint8 (H, W, 3 or 4)."""

    number: int
    time: float
    picture: np.ndarray


def spans(looked_at: Iterable[tuple[float, bool]]) -> list[list[float]]:
    """From when to when it was flagged, by looks (time, flagged) in order: [first, last] each."""
    found: list[list[float]] = []
    going = False
    for time, flagged in looked_at:
        if flagged and going:
            found[-1][1] = round(time, 3)
        elif flagged:
            found.append([round(time, 3)] * 2)
        going = flagged
    return found


class Reader:
    """Packets of a container in, the frames to look at out; counts, and knows when it ended."""

    def __init__(
        self,
        container: Any,
        every: float,
        megapixels: float,
        window: tuple[float, float],
        *,
        chosen: Callable[[int], bool],
    ):
        self.container, self.megapixels = container, megapixels
        self.samplers = {
            each.index: _Sampler(each, every, window, chosen) for each in container.streams.video
        }
        self.end = 0.0  # of all streams

    def read(self, packet: Any) -> Iterator[Look]:
        if packet.pts is not None and packet.time_base:
            self.end = max(
                self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base)
            )
        if packet.is_corrupt:
            raise Unreadable("a part of it is damaged")
        sampler = self.samplers.get(packet.stream.index)
        if sampler is None:
            return
        sampler.counted(packet)
        for frame in packet.decode():
            if frame.is_corrupt:
                raise Unreadable(f"a frame at {clock(frame.time or 0.0)} is damaged")
            check_size(frame.width, frame.height, self.megapixels)
            yield from sampler.looked_at(frame)

    def rest(self) -> Iterator[Look]:
        for sampler in self.samplers.values():
            yield from sampler.last()

    def check_end(self) -> None:
        for sampler in self.samplers.values():
            if not sampler.frames:
                raise Unreadable("it has no frames")
            if sampler.packets < sampler.stream.frames:
                raise Unreadable(
                    f"{sampler.packets} of {sampler.stream.frames} frames are there: it is cut off"
                )
        if self.container.duration:
            said = ((self.container.start_time or 0) + self.container.duration) / 1e6
            if self.end < said - SLACK:
                raise Unreadable(f"it ends at {clock(self.end)} of {clock(said)}: it is cut off")


class _Sampler:
    """Which frames of a stream are looked at."""

    def __init__(
        self,
        stream: Any,
        every: float,
        window: tuple[float, float],
        chosen: Callable[[int], bool],
    ):
        self.stream, self.every, self.window, self.chosen = stream, every, window, chosen
        self.packets = self.frames = 0
        self.last_packet: float | None = None
        # the other containers list their frames
        skips = "matroska" in stream.container.format.name
        self.gap = max(GAP, float(3 / (stream.average_rate or 25))) if skips else math.inf
        self.start = self.next = self.before = -math.inf
        self.held: Any = None  # the last so far, if it was not looked at

    def counted(self, packet: Any) -> None:
        """Raise Unreadable where frames are missing: readers of Matroska skip what is damaged."""
        if not packet.size:
            return  # the end
        self.packets += 1
        if packet.dts is not None:
            time = float(packet.dts * packet.time_base)
            if self.last_packet is not None and time - self.last_packet > self.gap:
                raise Unreadable(
                    f"it has no frame from {clock(self.last_packet)} to {clock(time)}: a part is"
                    " missing"
                )
            self.last_packet = time

    def looked_at(self, frame: Any) -> Iterator[Look]:
        number, self.frames = self.frames, self.frames + 1
        rate = self.stream.average_rate or 25
        time = float(number / rate) if frame.time is None else float(frame.time)
        if not self.window[0] <= time < self.window[1]:
            return
        in_time = time >= self.next - 1e-6 or time < self.before  # a clock that goes back
        due = in_time and self.chosen(number)
        self.before = time
        if not due:
            self.held = (number, time, frame)
            return
        self.held = None
        if self.start == -math.inf or time < self.start:
            self.start = time
        if self.every:
            self.next = self.start + self.every * (
                math.floor((time - self.start) / self.every + 1e-6) + 1
            )
        yield Look(number, time, pixels_of(frame))

    def last(self) -> Iterator[Look]:
        if self.held is not None:
            number, time, frame = self.held
            yield Look(number, time, pixels_of(frame))


def pixels_of(frame: av.VideoFrame) -> np.ndarray:
    """A frame as it is shown: turned upright, RGB, or RGBA if it has transparency."""
    clear = any(each.is_alpha for each in frame.format.components)
    picture = frame.to_ndarray(format="rgba" if clear else "rgb24")
    quarter = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarter)) if quarter else picture


def clock(seconds: float) -> str:
    """A time for people: `0:07`, `1:02:03`; tenths where it is not a whole second."""
    tenths = round(seconds * 10)
    hours, rest = divmod(tenths // 10, 3600)
    minutes, whole = divmod(rest, 60)
    part = f".{tenths % 10}" if tenths % 10 else ""
    return f"{f'{hours}:' if hours else ''}{minutes:0{2 if hours else 1}}:{whole:02}{part}"
