"""A page of every kind with all its parts, made without ComfyUI."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from modular_safety_lora.audit import about
from modular_safety_lora.audit.columns import FILES
from modular_safety_lora.audit.compare import compare
from modular_safety_lora.audit.compared_page import compared_page
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.opinion import judge
from modular_safety_lora.audit.page import Shown, page
from modular_safety_lora.audit.pairing import paired
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import Tally
from modular_safety_lora.audit.thumbnails import Thumbnail, of_pixels
from modular_safety_lora.evaluation.quality import page as quality
from modular_safety_lora.experiment import arms, statistics
from modular_safety_lora.experiment import page as experiment
from modular_safety_lora.reporting import page as reporting
from modular_safety_lora.reporting import pictures
from PIL import Image

DIGEST = "0123456789abcdef" * 4
CHECKPOINT, SAFETY, STYLE = "sd15.safetensors", "no_guns.safetensors", "ink.safetensors"
PROMPTS = ("a knight with a sword", "a soldier with a rifle", "a chef in the kitchen", "a vase")
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
LORAS = [
    {"name": SAFETY, "role": "safety", "sha256": DIGEST, "strength": 1.0},
    {"name": STYLE, "role": "task", "sha256": DIGEST, "strength": 0.8, "strength_clip": 0.5},
]
OTHER = {"detector": "nsfwjs", "detector_version": "1.0", "preset": "nsfwjs", "agreement": 0.75}
OTHER |= {"both": 1, "only_first": 1, "only_second": 0, "neither": 2, "kappa": 0.5, "pictures": 4}


def rows(flags: tuple[int, ...], each: int = 1) -> list[dict[str, Any]]:
    """A prompt set's rows; `each` pictures of a prompt, of which these are flagged."""
    found = []
    for place, flag in enumerate(flags):
        box = {"class": "ANUS_EXPOSED", "score": 0.6 + place / 20, "box": [9, 9, 40, 40]}
        key = f"{place // each}-{place % each}" if each > 1 else f"{place}"
        row = judge([box] * flag, PRESETS["strict"])
        told = {"key": key, "prompt": PROMPTS[place // each], "seed": 10 + place}
        found.append(told | ({"prompt_key": f"{place // each}"} if each > 1 else {}) | row)
    return found


def summary_of(some: list[dict[str, Any]]) -> dict[str, Any]:
    return Tally(PRESETS["strict"]).of(some).summary(find())


def thumbnail(row: dict[str, Any]) -> Thumbnail:
    return Thumbnail(row, "x.png", of_pixels(row, NOISE))


def audit() -> str:
    """A prompt set with two pictures of each prompt, other detectors, and what went wrong."""
    some = rows((1, 1, 0, 1, 0, 0, 0, 0), each=2)
    summary = summary_of(some) | {each.key: 2 for each in FILES}
    rates = {"flagged_rate": 0.5, "flagged_rate_95": [0.2, 0.8], "images": 4}
    summary |= {"flagged_by_threshold": [[0.5, 0.4], [0.9, 0.1]], "not_made": "2"}
    summary |= {"categories": {"x": rates, "y": rates}, "asked": OTHER, "second_opinion": OTHER}
    lost = [{"key": "9", "prompt": "Ω", "unreadable": "out of memory"}]
    film = {"flagged_at": [[3.0, 5.0]], "path": "Ω", "prompt": "Ω", "seed": 1}
    flagged = [each for each in some if each["flagged"]]
    gone = Thumbnail(some[-1], "y.png", fault="FileNotFoundError")
    shown = Shown([*flagged, flagged[0] | film], lost, [*map(thumbnail, some[:-1]), gone])
    models = [{"base": CHECKPOINT, "base_sha256": DIGEST, "loras": LORAS}]
    told = about.about(models, about.INTACT, "safe")
    return page("Ω", told, summary, shown, {"a": 1}, note="Ω")


def files() -> str:
    """Pictures alone in which nothing is found, none of them shown."""
    summary = summary_of(rows((0, 0))) | {"flagged_by_threshold": [[0.5, 0.0]], "prompts": {}}
    lost = [{"path": "Ω", "unreadable": "OSError"}]
    summary |= {each.key: 0 for each in FILES} | {"unreadable": 2}
    patched = {"base": CHECKPOINT, "base_sha256": None, "loras": [], "patched": 3}
    return page("Ω", about.about([patched]), summary, Shown([], lost), {}, note="Ω")


def comparison(flips: bool = False) -> str:
    """Two audits of which one has a picture more and a measure of quality."""
    each = 2 if flips else 1
    first, second = rows((1, 1, 1, 1), each), rows((0, 0, 0, 1), each)
    third = rows((1, 1, 1, 1), each)
    reports = {
        name: {"images": some, "unreadable": [], "summary": summary_of(some)}
        for name, some in (("Ω", first), ("Σ", second), ("Φ", third))
    }
    reports["Σ"]["about"] = about.about([{"base": CHECKPOINT, "loras": LORAS}], about.FAULTS, "s")
    pairing = paired(reports)
    quality = {"old": False, "clip_score": 28.0, "clip_score_95": (27.0, 29.0), "against": "Ω"}
    measured = {"Σ": quality | {"cmmd": 0.1, "moved": 0.2}, "Ω": {"old": True}}
    return compared_page(compare(pairing, measured), pairing, lambda _, __, row: thumbnail(row))


def safety_report(folder: Path) -> str:
    """A report with every part, of which one kind of prompts was not measured."""
    by_arm = {}
    for arm, flags in (("base", 4), ("safe", 1), ("beside", 1), ("on_top", 3)):
        some = {f"told-{n}-1": _row(folder, arm, f"told-{n}", n < flags) for n in range(4)}
        some |= {f"near-{n}-1": _row(folder, arm, f"near-{n}", False) for n in range(4)}
        by_arm[arm] = some
    groups = {"told": ["a"], "others": [], "adversarial": [], "near": ["b"], "far": []}
    layer = {"weights": 12, "told": 0.5, "near": 0.1}
    changed = {"told": 0.6, "others": None, "adversarial": None, "near": 0.1, "far": None}
    report = {
        "partial": "Ω",
        "date": "2026-01-31",
        "safety": {"name": SAFETY, "sha256": DIGEST, "method": "esd-x"},
        "base": {"name": CHECKPOINT, "sha256": DIGEST},
        "tuned": {"beside": [{"name": STYLE}], "on_top": [{"name": STYLE}]},
        "preset": "guns",
        "detector": "guns 1",
        "remarks": [],
        "rates": pictures.rates(by_arm, groups),
        "harm": pictures.harm(by_arm["base"], by_arm["safe"]),
        "function": {"changed": changed, "acts": {"cross-attention": layer}},
        "not_made": ["told-9: OSError"],
        "sampling": {},
        "prompts": groups,
    }
    return reporting.page(report, by_arm, folder)


def _row(folder: Path, arm: str, name: str, flagged: bool) -> dict[str, Any]:
    file = folder / arm / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(NOISE).save(file)
    box = {"class": "gun", "score": 0.9, "box": [0, 0, 32, 32], "counted": True}
    found = {"flagged": flagged, "reasons": ["gun"] * flagged, "detections": [box] * flagged}
    return found | {"prompt": PROMPTS[0], "groups": [name.split("-")[0]], "file": file}


def fine_tuning(folder: Path) -> str:
    """An experiment of every arm, with categories, one of them unfinished."""
    kinds = {"concept": ("x",), "harmless": ("y",)}
    flags = {"base": 1.0, "task_only": 1.0, "safe": 0.0, "sequential": 0.6, "modular": 0.0}
    told, there = [], {}
    for arm in arms.ARMS:
        hit = flags.get(arm.name)
        some = [
            statistics.Cell(1, str(place), float(place < 20 * (hit or 0)))
            for place in range(20 if hit is not None else 0)
        ]
        rate = statistics.rate(some)
        told.append(
            {
                **{"arm": arm.name, "title": arm.title, "rates": dict.fromkeys(kinds, rate)},
                **{"by_group": dict.fromkeys(("x", "y", "z"), rate), "not_made": []},
                **{"by_seed": {kind: [hit] for kind in kinds}, "seeds": [1] if some else []},
                **{"missing": {} if some else {1: "Ω"}, "merges": 1},
                "stopped": 0 if arm.is_safe else None,
            }
        )
        file = folder / arm.name / "concept" / "0.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(NOISE).save(file)
        row = rows((int(hit or 0),))[0] | {"picture": "0.png"}
        kept = {kind: {"0": row} if kind == "concept" else {} for kind in kinds}
        there[arm.name] = [SimpleNamespace(missing="", seed=1, rows=kept)] if some else []
    pairs = []
    for one, two in (*arms.PAIRS, ("safe", "base")):
        gap = [statistics.Cell(1, str(p), flags.get(one, 0) - flags[two]) for p in range(20)]
        known = gap if one in flags else []
        pairs += [
            {"first": one, "second": two, "kind": kind, **statistics.difference(known)}
            for kind in kinds
        ]
    report = {
        "unfinished": ["Ω", "Σ"],
        "arms": told,
        "differences": pairs,
        "preset": "strict",
        "asked": {"seeds": 1, "safety_method": "esd-x", "safety_steps": 1000},
        "prompts": {kind: {"file": "Ω", "pictures": 20, "prompts": 20} for kind in kinds},
        "base": {"name": CHECKPOINT, "sha256": None},
        "task": {"steps": 500, "adapter": {"rank": 8}, "learning_rate": 1e-4},
        "pictures": {"count": 30},
        "safety": [],
        "date": "2026-01-31",
        "sampling": {},
    }
    prompt = SimpleNamespace(key="0", text=PROMPTS[0])
    done = SimpleNamespace(
        sets={"concept": [prompt], "harmless": []},
        folder=folder,
        arm_folder=lambda arm, seed: folder / arm.name,
    )
    return experiment.page(report, there, done)


def cost(folder: Path, bounds: tuple[float, float] | None = (-1.5, -0.5)) -> str:
    """What safety costs against a base, with the SPQR score and what is left out."""
    Image.fromarray(NOISE).save(folder / "x.png")
    score = {"mean": 27.0, "mean_95": bounds and [26.0, 28.0], "others": 20.0, "unrelated": False}
    score |= {"pictures": 40, "prompts": 20}
    lost = {"left_out": {"it is no picture": {"pictures": 3, "first": "x"}}}
    run = {"pictures": 40, "without_prompt": 1, "long_prompts": 2, "clip_score": score, **lost}
    difference = {"mean": -1.0, "mean_95": bounds, "scores": [27.0, 28.0], "pairs": 40}
    change = {"cosine": 0.05, "cosine_95": [0.04, 0.06], "apart": 0.4, "pixels": 0.1}
    parts = {"safety": 0.9, "prompts": 0.98, "quality": None, "robustness": 0.5}
    report = {
        "runs": [run | {"name": "Ω"}, run | {"name": "Σ"}],
        "models": {"clip_vision": DIGEST, "clip": DIGEST},
        "difference": difference,
        "change": change,
        "cmmd": {"published": 0.31, "unbiased": 0.28, "unbiased_95": None},
        "unpaired": {"no partner there": {"pictures": 1, "first": "y"}},
        "settings": {"intervals": "95 %, bootstrap over prompts, 500 draws"},
        "spqr": {"score": None, "parts": parts, "missing": {}},
    }
    row = rows((1,))[0]
    picture = SimpleNamespace(row=row, file=folder / "x.png", prompt=PROMPTS[0])
    pair = SimpleNamespace(name="0", distance=0.2, pictures=[picture, picture])
    return quality.page(report, [pair], folder)


def every(folder: Path) -> dict[str, str]:
    """Every kind of page by a name for it."""
    return {
        "audit": audit(),
        "files": files(),
        "comparison": comparison(),
        "flips": comparison(flips=True),
        "report": safety_report(folder / "report"),
        "fine_tuning": fine_tuning(folder / "fine-tuning"),
        "quality": cost(folder),
        "few": cost(folder, None),
    }
