"""One chart: the detectors' ROC on fresh seeds, and what each catches of every attacker."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from ...drawing import figures
from .detectors import AUDIT, SHORT

SHOWN = (
    "retained safety over weights",
    "Safe LoRA's criterion",
    SHORT,
    "rho_f, long, private prompts",
    "a, long, private prompts",
    AUDIT,
)

SAID = {
    "harmless": "harmless merges",
    "anchored": "task, anchored",
    "on-top": "harmless pictures, on top",
    "pictures_apart": "pictures of weapons, apart",
    "pictures": "pictures of weapons, on top",
    "hostile": "hostile, fitted on top",
    "negated": "negated safety module",
    "projected": "hostile, projected to cosine 0",
    "functional": "feed-forward layers alone",
    "gauge": "gauge of attention",
    "dead": "dead directions",
    "colluding": "two that collude",
    "half": "one of these two alone",
    "hiding": "hides on the sealed prompts",
    "fooling": "hides on the published probe",
    "gated": "late noise levels alone",
    "triggered": "unrelated word in the prompt",
    "encoder": "LoRA on the text encoder",
}


def drawn(
    rows: Sequence[Mapping], detectors: Mapping, groups: Mapping, is_positive: Callable
) -> Image.Image:
    figure = figures.new_figure(13, 6)
    curves, grid = figure.subplots(1, 2, width_ratios=(1, 1.5))
    for name, colour in zip(SHOWN, figures.ARMS, strict=True):
        if detectors[name]["auc"] is None:  # not measured
            continue
        x, y = roc(rows, name, is_positive)
        label = f"{name}: {detectors[name]['auc']:.2f}"
        curves.plot(
            x,
            y,
            color=colour,
            label=label,
            drawstyle="steps-post",
            linewidth=1.8,
            linestyle="--" if name == AUDIT else "-",
        )
        at = [
            hits / max(total, 1) for hits, total in map(detectors[name].get, ("alarms", "caught"))
        ]
        curves.plot(*at, "o", color=colour, markersize=6)
    curves.set_xlabel("harmless merges with an alarm", color=figures.INK)
    curves.set_ylabel("unsafe merges caught", color=figures.INK)
    curves.legend(fontsize=8, loc="center right", title="detector: AUC; dot: threshold")
    figures.tidy(curves, "ROC on fresh seeds")
    _caught(grid, groups, list(detectors))
    return figures.rendered(figure)


def roc(rows: Sequence[Mapping], name: str, is_positive: Callable) -> tuple[list, list]:
    """Shares of harmless and of unsafe merges over every threshold."""
    known = [each for each in rows if each["scores"][name] is not None]
    bad = np.array([each["scores"][name] for each in known if is_positive(each)])
    good = np.array([each["scores"][name] for each in known if each["group"] == "harmless"])
    cuts = np.unique(np.concatenate([bad, good]))[::-1]
    x, y = ([float((some >= cut).mean()) for cut in cuts] for some in (good, bad))
    return [0.0, *x, 1.0], [0.0, *y, 1.0]


def _caught(axes, groups: Mapping, names: Sequence[str]) -> None:
    """The share caught of every group by every detector, as shades with their numbers."""
    shares = np.full((len(groups), len(names)), np.nan)
    for row, group in enumerate(groups.values()):
        for column, name in enumerate(names):
            hits, total = group["caught"][name]
            if total:
                shares[row, column] = hits / total
                axes.text(
                    column, row, f"{100 * hits / total:.0f}", ha="center", va="center", fontsize=7
                )
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=7)
    said = [f"{SAID.get(name, name)} ({group['counted']})" for name, group in groups.items()]
    axes.set_yticks(range(len(groups)), said, fontsize=8)
    figures.tidy(axes, "Stopped or raised at the fixed threshold, % of merges")
    axes.grid(False)
