"""What was measured, in words: the verdict first, then tables, then what was left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...drawing.markdown import table
from ...options.language import listed, phrase, said, say, say_many
from ...options.words import amount
from .resampling import LEAST
from .spqr import PARTS

Report = Mapping[str, Any]
Table = tuple[str, list[str], list[list[object]]]
HIGHER = phrase("CLIP score: 100 cos of the embeddings of picture and prompt; higher is nearer.")
NOTES = (
    phrase(
        "CMMD says how far apart two sets of pictures are: against photographs, lower looks better;"
        " against another model, it says only how much changed."
    ),
    phrase("FID and LPIPS are not measured: no package brings their networks."),
)
NOTE = {
    "safety": phrase("of harmful prompts, before tuning"),
    "prompts": phrase("of the CLIP score measured against"),
    "quality": phrase("between the worst and the best CMMD"),
    "robustness": phrase("0.5: tuning changed nothing"),
}
MEAN = phrase("the harmonic mean; not for comparison with the published table")
AGAINST = phrase("{first} against {second}")
WAY_OUT = phrase("Use text encoder and vision model of one CLIP, and pictures with their prompts.")
ALONE = phrase("Measure it against its base to know the cost.")
TOO_FEW = phrase("Fewer than {least} prompts: too few to tell what safety costs.")
LESS = phrase("Prompts are followed less than with {base}.")
MORE = phrase("Prompts are followed more than with {base}.")
ALIKE = phrase("No proven difference from {base} in how prompts are followed.")
SHOWN = {  # the parts by their names in the JSON
    "safety": phrase("safety"),
    "prompts": phrase("prompts"),
    "quality": phrase("quality"),
    "robustness": phrase("robustness"),
}
FEW = phrase("fewer than {least} prompts")


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
        gone = say_many("{count} picture left out.", "{count} pictures left out.", left)
        told.append((gone, ""))
    bold, plain = zip(*told, strict=True)
    return " ".join(filter(None, bold)), " ".join(filter(None, plain))


def _on_prompts(report: Report, unrelated: Sequence[str]) -> list[tuple[str, str]]:
    if unrelated:
        why = say(
            "The CLIP score says nothing here: pictures of {names} are no nearer to their own"
            " prompts than to the others.",
            names=listed(unrelated),
        )
        return [(why, say(WAY_OUT))]
    run, found = report["runs"][0], report.get("difference")
    score = run["clip_score"]
    if score is None:
        return [(say("No picture has a prompt, so there is no CLIP score."), "")]
    if not found:
        over = say(
            "95 %: {interval}, over {part} of {whole}.",
            interval=_interval(score["mean_95"]),
            part=amount(score["pictures"], "picture"),
            whole=amount(score["prompts"], "prompt"),
        )
        alone = [] if len(report["runs"]) > 1 else [say(ALONE)]
        return [
            (say("CLIP score {score}.", score=f"{score['mean']:.2f}"), " ".join([over, *alone]))
        ]
    base = report["runs"][1]["name"]
    figures = say(
        "CLIP score {score} against {base} (difference {difference}, 95 %: {interval}; {pairs}).",
        score=f"{found['scores'][0]:.2f}",
        base=f"{found['scores'][1]:.2f}",
        difference=f"{found['mean']:+.2f}",
        interval=_interval(found["mean_95"], "+"),
        pairs=amount(found["pairs"], "pair"),
    )
    if found["mean_95"] is None:
        return [(say(TOO_FEW, least=LEAST), figures)]
    low, high = found["mean_95"]
    text = LESS if high < 0 else MORE if low > 0 else ALIKE
    return [(say(text, base=base), figures)]


def _on_pictures(report: Report) -> list[tuple[str, str]]:
    changed, apart = report.get("change"), report.get("cmmd")
    told = []
    if changed:
        moved = f"{changed['cosine']:.3f}"
        told.append(("", say("The pictures moved by {distance} (0: not at all).", distance=moved)))
        if changed["apart"] is not None:
            far = f"{changed['apart']:.3f}"
            told.append(
                ("", say("Pictures of different prompts are {distance} apart.", distance=far))
            )
    if apart:
        told.append(("", f"CMMD {apart['published']:.3f}."))
    return told


def tables(report: Report) -> list[Table]:
    """The tables of a report: title, head, rows."""
    head = [
        *(say("pictures of"), say("measured"), say("prompts"), say("CLIP score"), "95 %"),
        say("with other prompts"),
    ]
    rows = [
        [each["name"], each["pictures"], *_score(each["clip_score"])] for each in report["runs"]
    ]
    found: list[Table] = [(say("CLIP score"), head, rows)]
    if len(report["runs"]) > 1:
        title = say("Against {name}", name=report["runs"][1]["name"])
        found.append((title, [say("measure"), say("value"), "95 %"], _compared(report)))
    parts, score = report["spqr"]["parts"], report["spqr"]["score"]
    if parts["safety"] is not None or parts["quality"] is not None:
        missing = report["spqr"]["missing"]
        rows = [
            [say(SHOWN[name]), _number(parts[name], 3), said(missing.get(name, NOTE[name]))]
            for name in PARTS
        ]
        mean = say("a part is missing") if score is None else say(MEAN)
        rows.append([say("score"), _number(score, 3), mean])
        head = [say("part"), say("value"), say("note")]
        found.append((say("SPQR, with CMMD for FID"), head, rows))
    return found


def left_out(report: Report) -> list[str]:
    """A line for each kind of picture or prompt that is not in the figures."""
    lines = []
    for each in report["runs"]:
        for why, told in each["left_out"].items():
            lines.append(
                say_many(
                    "{count} picture of {name}: {reason} (first: {first})",
                    "{count} pictures of {name}: {reason} (first: {first})",
                    told["pictures"],
                    name=each["name"],
                    reason=said(why),
                    first=told["first"],
                )
            )
        if each["without_prompt"]:
            lines.append(
                say_many(
                    "{count} picture of {name} without a prompt: not in the CLIP score",
                    "{count} pictures of {name} without a prompt: not in the CLIP score",
                    each["without_prompt"],
                    name=each["name"],
                )
            )
        if each["long_prompts"]:
            lines.append(
                say_many(
                    "{count} prompt of {name} too long: only the first 77 tokens count",
                    "{count} prompts of {name} too long: only the first 77 tokens count",
                    each["long_prompts"],
                    name=each["name"],
                )
            )
    for why, told in report.get("unpaired", {}).items():
        lines.append(
            say_many(
                "{count} picture of {name} not compared: {reason} (first: {first})",
                "{count} pictures of {name} not compared: {reason} (first: {first})",
                told["pictures"],
                name=report["runs"][0]["name"],
                reason=said(why),
                first=told["first"],
            )
        )
    return [f"- {line}" for line in lines]


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
        rows.append([say("CLIP score, difference"), *score])
    if apart:
        rows.append([say("CMMD, as published"), f"{apart['published']:.3f}", "-"])
        unbiased = [f"{apart['unbiased']:.3f}", _interval(apart["unbiased_95"], digits=3)]
        rows.append([say("CMMD, unbiased"), *unbiased])
    else:
        rows.append(["CMMD", "-", say("fewer than two pictures")])
    if changed:
        moved = [f"{changed['cosine']:.3f}", _interval(changed["cosine_95"], digits=3)]
        rows.append([say("change, 1 - cos of embeddings"), *moved])
        rows.append([say("the same of different prompts"), _number(changed["apart"], 3), "-"])
        rows.append([say("change, mean of pixels (0 to 1)"), _number(changed["pixels"], 3), "-"])
    return rows


def _interval(bounds: Sequence[float] | None, sign: str = "", digits: int = 2) -> str:
    if bounds is None:
        return say(FEW, least=LEAST)
    low, high = (f"{each:{sign}.{digits}f}" for each in bounds)
    return say("{low} to {high}", low=low, high=high)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
