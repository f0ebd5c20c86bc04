"""Probe LoRAs against a base and a safety LoRA: which of them must be audited.

    python custom_nodes/modular-safety-lora probe loras/ --checkpoint base.safetensors \\
        --safety-lora safety.safetensors --output probe.md

Every LoRA is merged alone with the safety LoRAs. With --calibrate the LoRAs are harmless by your
word, and what they keep gives the limits for the settings. The exit code is 0 when all pass, 2 when
one must be audited or can't be read, 3 when nothing was looked at.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from ..function.limits import Limits, against_limits
from ..host.comfyui import enter_comfyui
from ..merge.settings import Asked, EachAlone, Merging
from ..modules.files import load_task
from ..storage.whole import write_text
from .base import add_loras, load_base, loras_of, safety_of
from .calibrating import COUNTED, calibrated
from .exits import NOT_CLEAN, UNSEEN
from .flags import add_flags, taken
from .kinds import file_named
from .terminal import Bar, close_bars

HEAD = ("LoRA", "verdict", "at the merge", "least of the groups", "least prompt", "why")

KINDS = (EachAlone, Merging, Asked, Limits)


@dataclass(frozen=True)
class Probing:
    """How each LoRA is merged, what is asked of it, and under which limits it passes."""

    each: EachAlone
    merging: Merging
    asked: Asked
    limits: Limits


def options(parser: argparse.ArgumentParser) -> None:
    add_loras(parser)
    add_flags(parser, *KINDS)
    add = parser.add_argument
    add("--calibrate", action="store_true", help="the LoRAs are harmless: suggest limits")
    add("--output", type=file_named(".md", ".json"), help="a table to write, Markdown or JSON")


def work(options: argparse.Namespace) -> int:
    how = Probing(*taken(options, *KINDS))
    enter_comfyui(options.comfyui)
    paths = loras_of(options)
    model, clip, _ = load_base(options)
    safety = safety_of(options)
    bar, rows = Bar("Probing", "LoRAs", len(paths)), []
    for number, (name, path) in enumerate(paths.items()):
        rows.append(_row((model, clip), safety, path, how, name=name))
        bar(number + 1, len(paths))
        print(_line(rows[-1]), flush=True)
    close_bars()
    if options.output:
        write_text(options.output, _written(rows, options.output))
    if options.calibrate:
        print(calibrated(rows, how.limits))
        return 0
    if all("error" in each for each in rows):
        return UNSEEN
    return 0 if all(each.get("passed") for each in rows) else NOT_CLEAN


def _row(base: tuple, safety: list, path: Path, how: Probing, *, name: str) -> dict:
    """What a LoRA keeps, at the merge and in the long look; or why there is nothing."""
    from ..merge.merge import Task, merge
    from ..merge.probe import probe

    bar = Bar(name, "forward passes", leave=False)
    try:
        task = Task(load_task(path, name), how.each.strength, how.each.strength)
        merged = merge(base[0], safety, [task], base[1], **vars(how.merging), limits=how.limits)
        probed = probe(merged.model, how.asked, how.limits, bar.add)
    except (ValueError, RuntimeError, OSError) as error:
        return {"name": name, "passed": False, "error": " ".join(str(error).split())}
    finally:
        bar.close()
    report = probed.report()
    reasons = [*merged.report["losses"], *report["reasons"]]
    return {
        "name": name,
        **report,
        "passed": not reasons,
        "reasons": reasons,
        "short": merged.report["retained_in_function"],
        COUNTED: [*map(against_limits, merged.computed.values()), probed.against_limits],
    }


def _line(row: dict) -> str:
    if "error" in row:
        return f"{row['name']}: MUST BE AUDITED, it could not be probed: {row['error']}"
    left = f"{_told(row['least'])} of the safety LoRA is left, {_told(row['short'])} at the merge"
    if row["passed"]:
        return f"{row['name']}: passed; {left}"
    return f"{row['name']}: MUST BE AUDITED; {left}: {row['reasons'][0]}"


def _cells(row: dict) -> list[str]:
    if "error" in row:
        return [row["name"], "not probed", "-", "-", "-", row["error"]]
    verdict = "passed" if row["passed"] else "must be audited"
    told = [row["name"], verdict, _told(row["short"]), _told(row["least"])]
    more = len(row["reasons"]) - 1
    why = f"{row['reasons'][0]}{f' (and {more} more)' if more > 0 else ''}" if more >= 0 else ""
    return [*told, _least_prompt(row), why]


def _least_prompt(row: dict) -> str:
    found = [
        (told["retained_in_function"], prompt)
        for each in row["safety"]
        for prompt, told in each["prompts"].items()
        if told["retained_in_function"] is not None
    ]
    return f"{min(found)[0]:.3f}: {min(found)[1]}" if found else "-"


def _written(rows: list[dict], file: Path) -> str:
    from ..drawing.markdown import table

    if file.suffix.lower() == ".json":
        shown = [{key: each[key] for key in each if key != COUNTED} for each in rows]
        return json.dumps(shown, indent=1) + "\n"
    return "\n".join(table(HEAD, map(_cells, rows))) + "\n"


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
