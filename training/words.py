"""What a training run did, in words: a verdict, its figures, what to do next."""

from collections.abc import Mapping
from typing import Any

from ..drawing.markdown import share, table

SHOWN = 5  # prompts


def in_words(report: Mapping[str, Any]) -> str:
    """Markdown of a run's report (`engine.output.report_of`)."""
    done = f"{report['steps']} of {report['of_steps']} steps in {_time(report['seconds'])}"
    ended = "Stopped early" if report["cancelled"] else "Trained"
    lines = [f"**{ended}: {report['name']}**, {done}, {report['keys']} tensors.", ""]
    first, last = report["loss"]["first"], report["loss"]["last"]
    rows = [[name, f"{first[name]:.4g}", f"{last[name]:.4g}"] for name in first if name in last]
    lines += table(["loss", "first tenth", "last tenth"], rows)
    looks = [each for each in report["previews"] if each["images"]]
    if looks:
        lines += ["", *table(["step", "previews flagged"], map(_look, looks))]
    harmed = report.get("harmed", {})
    if harmed:
        rows = [[prompt, share(value)] for prompt, value in list(harmed.items())[:SHOWN]]
        lines += ["", *table(["what should stay, most changed first", "changed by"], rows)]
    return "\n".join([*lines, "", *(f"- {line}" for line in _next(report))])


def _look(preview: Mapping[str, Any]) -> list[str]:
    of_all = share(preview["flagged"] / preview["images"])
    return [preview["step"], f"{preview['flagged']} of {preview['images']} ({of_all})"]


def _next(report: Mapping[str, Any]) -> list[str]:
    found = []
    if report["cancelled"]:
        found.append("It can go on from here: run it again with resume on, and the same name.")
    if report["role"] == "safety":
        found.append("Next: connect it to Modular Merge, audit the pictures, and pin its sha256.")
    elif report.get("safety_mode") == "frozen":
        found.append(
            "Trained on top of the safety LoRA, which relearns what that holds back: to compare,"
            " not to use. detached or anchored keep it."
        )
    else:
        found.append("Next: connect it to Modular Merge beside the safety LoRA, and audit.")
    return found


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
