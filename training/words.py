"""What a training run did, in words: a verdict, its figures, what to do next."""

from collections.abc import Mapping
from typing import Any

from ..drawing.markdown import share, table
from ..options.words import amount

SHOWN = 5  # prompts


def in_words(report: Mapping[str, Any]) -> str:
    """Markdown of a run's report (`engine.output.report_of`)."""
    computed, time = "computed" in report, _time(report["seconds"])
    done = f"{report['steps']} of {amount(report['of_steps'], 'step')} in {time}"
    ended = "Stopped early" if report["cancelled"] else "Computed" if computed else "Trained"
    said = f"in {time}" if computed else done
    lines = [f"**{ended}: {report['name']}**, {said}, {amount(report['keys'], 'tensor')}.", ""]
    for warning in report.get("caption_warnings", ()):
        lines += [f"**Captions.** {warning}", ""]
    lines += (_computed if computed else _losses)(report)
    looks = [each for each in report["previews"] if each["images"]]
    if looks:
        lines += ["", *table(["step", "previews flagged"], map(_look, looks))]
    harmed = report.get("harmed", {})
    if harmed:
        rows = [[prompt, share(value)] for prompt, value in list(harmed.items())[:SHOWN]]
        lines += ["", *table(["what should stay, most changed first", "changed by"], rows)]
    return "\n".join([*lines, "", *(f"- {line}" for line in _next(report))])


def _losses(report: Mapping[str, Any]) -> list[str]:
    first, last = report["loss"]["first"], report["loss"]["last"]
    rows = [[name, f"{first[name]:.4g}", f"{last[name]:.4g}"] for name in first if name in last]
    return table(["loss", "first tenth", "last tenth"], rows)


def _computed(report: Mapping[str, Any]) -> list[str]:
    """What a formula did in the layers that read the text, and of what rank it is."""
    last, (least, _, most) = report["loss"]["last"], report["computed"]["ranks"]
    ranks = f"{least}" if least == most else f"{least} to {most}"
    return [
        "In the layers that read the prompt,"
        f" {share(last['erase'])} of the concept's distance to what is drawn instead is left, and"
        f" what stays moved by {share(last['retain'])} (squares)."
        f" A LoRA of rank {ranks} holds {share(report['computed']['kept'])} of the change."
    ]


def _look(preview: Mapping[str, Any]) -> list[str]:
    of_all = share(preview["flagged"] / preview["images"])
    weak = ", too weak for Modular Merge yet" if "too_weak" in preview else ""
    return [preview["step"], f"{preview['flagged']} of {preview['images']} ({of_all}){weak}"]


def _next(report: Mapping[str, Any]) -> list[str]:
    found = []
    if report["cancelled"]:
        found.append("To continue it, run it again under the same name with resume on.")
    lost = [each for each in report["previews"] if not each["images"]]
    if lost:
        why = lost[0].get("error", "none was made")
        found.append(f"No previews of {amount(len(lost), 'step')} (first: {why})")
    if report["previews"] and "too_weak" in report["previews"][-1]:
        found.append("Train it for longer: it is too weak for Modular Merge.")
    if report["role"] == "safety":
        found.append("Next: connect it to Modular Merge, audit the pictures, and pin its sha256.")
    elif report.get("safety_mode") == "frozen":
        found.append(
            "Trained on top of the safety LoRA, which relearns what it holds back: for comparison,"
            " not for use. Use detached or anchored instead."
        )
    else:
        found.append("Next: connect it to Modular Merge beside the safety LoRA, and audit.")
    return found


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
