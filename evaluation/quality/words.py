"""What was measured, in words: the verdict first, then tables, then what was left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...drawing.markdown import table
from ...options.words import amount
from .resampling import LEAST
from .spqr import PARTS

Report = Mapping[str, Any]
Table = tuple[str, list[str], list[list[object]]]
HIGHER = "CLIP score: 100 cos of the embeddings of picture and prompt; higher is nearer."
NOTES = (
    "CMMD says how far apart two sets of pictures are: against photographs, lower looks better;"
    " against another model, it says only how much changed.",
    "FID and LPIPS are not measured: no package brings their networks.",
)
NOTE = {
    "safety": "of harmful prompts, before tuning",
    "prompts": "of the CLIP score measured against",
    "quality": "between the worst and the best CMMD",
    "robustness": "0.5: tuning changed nothing",
}
MEAN = "the harmonic mean; not for comparison with the published table"


def verdict(report: Report) -> tuple[str, str]:
    """What safety costs in a sentence, to be bold, and the figures that say so."""
    unrelated = [
        each["name"]
        for each in report["runs"]
        if each["clip_score"] and each["clip_score"]["unrelated"]
    ]
    told = [*_on_prompts(report, unrelated), *_on_pictures(report)]
    left = sum(why["pictures"] for each in report["runs"] for why in each["left_out"].values())
    if left:
        told.append((f"{amount(left, 'picture')} left out.", ""))
    bold, plain = zip(*told, strict=True)
    return " ".join(filter(None, bold)), " ".join(filter(None, plain))


def _on_prompts(report: Report, unrelated: Sequence[str]) -> list[tuple[str, str]]:
    if unrelated:
        return [
            (
                f"The CLIP score says nothing here: pictures of {' and '.join(unrelated)} are no"
                " nearer to their own prompts than to the others.",
                "Use text encoder and vision model of one CLIP, and pictures with their prompts.",
            )
        ]
    run, found = report["runs"][0], report.get("difference")
    score = run["clip_score"]
    if score is None:
        return [("No picture has a prompt, so there is no CLIP score.", "")]
    if not found:
        over = f"{amount(score['pictures'], 'picture')} of {amount(score['prompts'], 'prompt')}"
        alone = "" if len(report["runs"]) > 1 else " Measure it against its base to know the cost."
        return [
            (
                f"CLIP score {score['mean']:.2f}.",
                f"95 %: {_interval(score['mean_95'])}, over {over}.{alone}",
            )
        ]
    base = report["runs"][1]["name"]
    figures = (
        f"CLIP score {found['scores'][0]:.2f} against {found['scores'][1]:.2f} (difference"
        f" {found['mean']:+.2f}, 95 %: {_interval(found['mean_95'], '+')}; "
        f"{amount(found['pairs'], 'pair')})."
    )
    if found["mean_95"] is None:
        return [(f"Fewer than {LEAST} prompts: too few to tell what safety costs.", figures)]
    low, high = found["mean_95"]
    if high < 0:
        return [(f"Prompts are followed less than with {base}.", figures)]
    if low > 0:
        return [(f"Prompts are followed more than with {base}.", figures)]
    return [(f"No proven difference from {base} in how prompts are followed.", figures)]


def _on_pictures(report: Report) -> list[tuple[str, str]]:
    changed, apart = report.get("change"), report.get("cmmd")
    told = []
    if changed:
        beside = (
            f" Pictures of different prompts are {changed['apart']:.3f} apart."
            if changed["apart"] is not None
            else ""
        )
        told.append(("", f"The pictures moved by {changed['cosine']:.3f} (0: not at all).{beside}"))
    if apart:
        told.append(("", f"CMMD {apart['published']:.3f}."))
    return told


def tables(report: Report) -> list[Table]:
    """The tables of a report: title, head, rows."""
    head = ["pictures of", "measured", "prompts", "CLIP score", "95 %", "with other prompts"]
    rows = [
        [each["name"], each["pictures"], *_score(each["clip_score"])] for each in report["runs"]
    ]
    found: list[Table] = [("CLIP score", head, rows)]
    if len(report["runs"]) > 1:
        against = report["runs"][1]["name"]
        found.append((f"Against {against}", ["measure", "value", "95 %"], _compared(report)))
    parts, score = report["spqr"]["parts"], report["spqr"]["score"]
    if parts["safety"] is not None or parts["quality"] is not None:
        missing = report["spqr"]["missing"]
        rows = [[name, _number(parts[name], 3), missing.get(name, NOTE[name])] for name in PARTS]
        rows.append(["score", _number(score, 3), "a part is missing" if score is None else MEAN])
        found.append(("SPQR, with CMMD for FID", ["part", "value", "note"], rows))
    return found


def left_out(report: Report) -> list[str]:
    """A line for each kind of picture or prompt that is not in the figures."""
    lines = []
    for each in report["runs"]:
        for why, told in each["left_out"].items():
            lines.append(
                f"- {amount(told['pictures'], 'picture')} of {each['name']}: {why} (first:"
                f" {told['first']})"
            )
        if each["without_prompt"]:
            count = amount(each["without_prompt"], "picture")
            lines.append(f"- {count} of {each['name']} without a prompt: not in the CLIP score")
        if each["long_prompts"]:
            count = amount(each["long_prompts"], "prompt")
            lines.append(f"- {count} of {each['name']} too long: only the first 77 tokens count")
    for why, told in report.get("unpaired", {}).items():
        lines.append(
            f"- {amount(told['pictures'], 'picture')} of {report['runs'][0]['name']} not compared:"
            f" {why} (first: {told['first']})"
        )
    return lines


def in_words(report: Report) -> str:
    """The report as Markdown."""
    bold, plain = verdict(report)
    lines = [f"**{bold}** {plain}" if bold else plain]
    for title, head, rows in tables(report):
        lines += ["", f"{title}:", "", *table(head, rows)]
    lines += ["", *(f"- {each}" for each in (HIGHER, *NOTES[: len(report["runs"])]))]
    alone = left_out(report)
    return "\n".join([*lines, *(["", "Left out:", "", *alone] if alone else [])])


def _score(score: Report | None) -> list[object]:
    if score is None:
        return [0, "-", "-", "-"]
    return [
        score["prompts"],
        f"{score['mean']:.2f}",
        _interval(score["mean_95"]),
        _number(score["others"], 2),
    ]


def _compared(report: Report) -> list[list[object]]:
    found, apart, changed = report["difference"], report["cmmd"], report["change"]
    rows: list[list[object]] = []
    if found:
        score = [f"{found['mean']:+.2f}", _interval(found["mean_95"], "+")]
        rows.append(["CLIP score, difference", *score])
    if apart:
        rows.append(["CMMD, as published", f"{apart['published']:.3f}", "-"])
        unbiased = [f"{apart['unbiased']:.3f}", _interval(apart["unbiased_95"], digits=3)]
        rows.append(["CMMD, unbiased", *unbiased])
    else:
        rows.append(["CMMD", "-", "fewer than two pictures"])
    if changed:
        moved = [f"{changed['cosine']:.3f}", _interval(changed["cosine_95"], digits=3)]
        rows.append(["change, 1 - cos of embeddings", *moved])
        rows.append(["the same of different prompts", _number(changed["apart"], 3), "-"])
        rows.append(["change, mean of pixels (0 to 1)", _number(changed["pixels"], 3), "-"])
    return rows


def _interval(bounds: Sequence[float] | None, sign: str = "", digits: int = 2) -> str:
    if bounds is None:
        return f"fewer than {LEAST} prompts"
    return " to ".join(f"{each:{sign}.{digits}f}" for each in bounds)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
