"""The node Audit Video; audit/film_audit.py does the work."""

import math
import uuid
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, io, ui

from ..audit.censor import STOP
from ..audit.film_audit import HIDE, Watching, hiding, watch
from ..audit.film_reader import clock
from ..audit.film_writer import written
from ..audit.films import described
from ..audit.report import as_text
from ..audit.rules import Counting
from ..audit.sheet import audit_sheet
from ..audit.words import film_in_words, times
from ..merge.findings import FAULTS
from . import recording
from .audits import (
    audit_demands,
    counting_inputs,
    known_counting,
    meter,
    opinion_of,
    presets,
)
from .inputs import Inputs, taken
from .made_by import beside_pictures
from .nudity_audit import AuditStopped
from .sockets import CATEGORY, as_image, preview, summary_output


class AuditVideo(io.ComfyNode):
    """A detector on frames of a video, counted under a published rule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rows = Inputs(Counting, Watching)
        return io.Schema(
            node_id="MSL_AuditVideo",
            display_name="Audit Video",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Look at frames of a video, one a second, and tell when something was found. What"
                " lies between two looks is not seen. A damaged video is an error."
            ),
            search_aliases=["nsfw", "nudenet", "film", "movie", "video safety checker"],
            inputs=[
                io.Video.Input("video", tooltip="The video. It is read frame by frame."),
                *counting_inputs(rows, "preset"),
                *rows.shown("every", "action"),
                *rows.shown("threshold", "classes", optional=True),
                *counting_inputs(rows, "second_opinion", optional=True),
                *rows.aside("min_size"),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video", tooltip="The video, changed as the action says."
                ),
                io.Boolean.Output(
                    display_name="passed", tooltip="True when no frame that was looked at counts."
                ),
                io.String.Output(
                    display_name="report", tooltip="Every look and the summary, as JSON."
                ),
                io.Image.Output(
                    display_name="sheet",
                    tooltip="At most 12 small frames, flagged ones first; what counts is blurred.",
                ),
                summary_output(),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        return audit_demands()

    @classmethod
    def validate_inputs(
        cls,
        preset: str | None = None,
        classes: str | None = None,
        second_opinion: str | None = None,
    ) -> bool | str:
        return known_counting(preset, classes, second_opinion)

    @classmethod
    def execute(cls, video, **inputs) -> io.NodeOutput:
        counting, watching = taken(inputs, Counting, Watching)
        preset, second = counting.among(presets())
        source = video.get_stream_source()
        film = described(Path(source) if isinstance(source, str) else source)
        start, seconds = _window(video)
        window = (start, start + seconds if seconds else math.inf)
        looks = max(1, round((seconds or film.seconds) / (watching.every or 1 / 24)))
        found = watch(
            film,
            opinion_of(preset),
            opinion_of(second) if second else None,
            meter(looks),
            every=watching.every,
            window=window,
        )
        beside = beside_pictures()
        report = found.report | beside
        summary = report["summary"]
        passed = summary["images"] > 0 and summary["flagged"] == 0
        recording.audited(summary, "Audit Video", watching.action, beside)
        if watching.action == STOP and not passed:
            when = f" at {times(summary['flagged_at'])}" if summary["flagged"] else ""
            raise AuditStopped(f"Audit Video stopped this prompt: {summary['verdict']}{when}.")
        if watching.action in HIDE and not passed:
            video = _changed(film, found, watching.action, window)
        sheet = _sheet(found)
        words = film_in_words(summary, watching.action, report[FAULTS])
        shown = {**preview(sheet).as_dict(), **ui.PreviewText(words).as_dict()}
        return io.NodeOutput(video, passed, as_text(report), as_image(sheet), words, ui=shown)


def _window(video) -> tuple[float, float]:
    """Start and length of what flows on, in seconds; a length of 0 is to the end."""
    asked = getattr(video, "get_active_trim_window", None)  # since ComfyUI 0.30
    return asked() if asked else (0.0, 0.0)


def _changed(film, found, action: str, window: tuple[float, float]):
    """The video with what was flagged hidden, and all of what was not looked at."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    start, end = window

    flagged = hiding(found.report["images"])

    def hides(time: float) -> bool:
        return not start <= time < end or flagged(time)

    stop = meter(1)
    name = uuid.uuid4().hex
    path = written(film, folder, name, action=action, hides=hides, progress=lambda: stop(0))
    length = 0.0 if end == math.inf else end - start
    return InputImpl.VideoFromFile(str(path), start_time=start, duration=length)


def _sheet(found):
    pictures = [
        torch.from_numpy(np.divide(picture, 255, dtype=np.float32)) for _, picture in found.shown
    ]
    results = [result for result, _ in found.shown]
    report = {"images": results, "summary": found.report["summary"]}
    return audit_sheet(pictures, report, [clock(each["time"]) for each in results])
