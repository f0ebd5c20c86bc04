"""What safety costs, measured over finished runs: report, page and grid of what changed most."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...audit.report import as_text
from ...options.language import phrase
from ...storage.owned import owned
from ...storage.whole import write_text
from . import spqr
from .cache import cached
from .cmmd import SIGMA
from .embeddings import QualityError
from .encoders import Encoders
from .figures import of_one, of_two
from .grid import Pair, grid
from .looking import Seen, look, look_at_texts
from .page import page
from .resampling import DRAWS
from .robustness import robustness
from .sources import Source, read_source
from .words import in_words

NAME = "quality"
UNSCALED = spqr.Scale()
Json = dict[str, Any]


@dataclass(frozen=True)
class MeasureJob:
    """Whose pictures are measured, against whose, and the folder of the results.

    `harmful` and `tuned` are runs of the safe model with prompts of the concept, before and after
    benign tuning; `scale` what the quality of an SPQR score is scaled by. `on_step` may raise to
    stop: what was looked at is kept.
    """

    run: Path
    output: Path
    against: Path | None = None
    harmful: Path | None = None
    tuned: Path | None = None
    scale: spqr.Scale = UNSCALED
    on_step: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Measured:
    """The report, the same in words, and the pairs that changed most as a picture."""

    report: Json
    words: str
    grid: Image.Image
    page: Path


def measure(vision, clip, job: MeasureJob) -> Measured:
    """Measure a run; its folder gets quality.json and quality.html. Raises QualityError."""
    encoders, sources = Encoders(vision, clip), _sources(job)
    robust = robustness(job.harmful, job.tuned)
    total = 2 * sum(len(each.pictures) for each in sources)
    steps = itertools.count(1)

    def on_step() -> None:
        job.on_step(min(next(steps), total), total)

    def on_block() -> None:
        job.on_step(total, total)

    with owned(job.output / NAME), ExitStack() as open_:
        kept = {each.folder: _kept_in(each, job.output) for each in sources}
        caches = {
            folder: open_.enter_context(cached(folder)) for folder in dict.fromkeys(kept.values())
        }
        of = [caches[kept[each.folder]] for each in sources]
        seen = [
            look(each, encoders, cache, on_step) for each, cache in zip(sources, of, strict=True)
        ]
        prompts = [each.prompt for one in seen for each in one.pictures if each.prompt]
        texts = look_at_texts(prompts, encoders, of[0], on_step)
        report: Json = {
            "runs": [of_one(each, texts, encoders) for each in seen],
            **(of_two(*seen, texts, of[0], on_block) if len(seen) > 1 else {}),
            "models": {"clip_vision": encoders.of_pictures, "clip": encoders.of_texts},
            "settings": {
                "clip_score": "100 cos(picture, prompt)",
                "cmmd": f"Gaussian kernel, sigma {SIGMA:g}, x 1000, middle squares",
                "intervals": f"95 %, bootstrap over prompts, {DRAWS} draws",
            },
        }
        report["spqr"] = _spqr(report, robust, job.scale)
        shown = _shown(report, seen)
        write_text(job.output / f"{NAME}.json", as_text(report))
        write_text(job.output / f"{NAME}.html", page(report, shown, job.output))
    job.on_step(total, total)
    file = job.output / f"{NAME}.html"
    drawn = grid(shown, [each["name"] for each in report["runs"]])
    return Measured(report, in_words(report), drawn, file)


def _sources(job: MeasureJob) -> list[Source]:
    folders = [each for each in (job.run, job.against) if each]
    if len({each.resolve() for each in folders}) < len(folders):
        raise QualityError(f"{job.run}: this folder can't be measured against itself.")
    names = [each.resolve().name for each in folders]
    if len(set(names)) < len(names):
        names = [each.as_posix() for each in folders]
    return [read_source(folder, name) for folder, name in zip(folders, names, strict=True)]


def _kept_in(source: Source, output: Path) -> Path:
    """Where a source's embeddings are kept: with a run; beside the results for another folder."""
    return source.folder if source.report is not None else output


def _spqr(report: Json, robust: Json, scale: spqr.Scale) -> Json:
    """The four parts, each a value or why there is none, and the score of all four."""
    distance = report.get("cmmd")
    mixed = any(each["clip_score"] and each["clip_score"]["unrelated"] for each in report["runs"])
    difference = None if mixed else report.get("difference")
    parts = {
        "safety": robust["safety"],
        "prompts": spqr.prompts(*difference["scores"]) if difference else None,
        "quality": spqr.quality(distance["published"], scale) if distance else None,
        "robustness": robust["robustness"],
    }
    missing = {
        "safety": robust["why"],
        "prompts": phrase("the CLIP score says nothing here")
        if mixed
        else phrase("a base run of the same prompts and seeds is needed (against)"),
        "quality": phrase("best_cmmd and worst_cmmd of all methods you compare are needed"),
        "robustness": robust["why"],
    }
    return {
        "score": spqr.score(parts),
        "parts": parts,
        "missing": {name: missing[name] for name, each in parts.items() if each is None},
    }


def _shown(report: Json, seen: Sequence[Seen]) -> list[Pair]:
    """The pairs that changed most, with their pictures."""
    changed = report.get("change")
    if not changed:
        return []
    by_name = [{each.name: each for each in one.pictures} for one in seen]
    return [
        Pair(each["name"], each["cosine"], [one[each["name"]] for one in reversed(by_name)])
        for each in changed["most"]
    ]
