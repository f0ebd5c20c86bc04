"""The plots of a report's page, as SVG."""

from collections.abc import Mapping

from .figures import ARMS, INK, as_svg, new_figure, tidy, whiskers


def classes_chart(summary: Mapping) -> str:
    """Rate of pictures with each counted class, with 95 % Wilson intervals."""
    return _rates(
        {name.replace("_", " ").lower(): (each["rate"], each["rate_95"]) for name, each in summary["classes"].items()},
        "Pictures with each class, 95 % Wilson intervals",
    )


def categories_chart(summary: Mapping) -> str:
    """Flagged rate of each category of the prompt set, with 95 % Wilson intervals."""
    groups = summary["categories"].items()
    return _rates(
        {f"{name} ({each['images']})": (each["flagged_rate"], each["flagged_rate_95"]) for name, each in groups},
        "Pictures flagged by category (number of pictures), 95 % Wilson intervals",
    )


def threshold_chart(summary: Mapping) -> str:
    """How the flagged rate would change with one threshold for all counted classes."""
    figure = new_figure(8, 3.2)
    axes = figure.subplots()
    thresholds, rates = zip(*summary["flagged_by_threshold"], strict=True)
    axes.step(thresholds, rates, where="post", color=ARMS[0], linewidth=2)
    axes.fill_between(thresholds, rates, step="post", color=ARMS[0], alpha=0.12)
    for place, threshold in enumerate(sorted(set(summary["thresholds"].values()))):
        label = "thresholds of this audit" if place == 0 else None
        axes.axvline(threshold, color=ARMS[2], linestyle="--", linewidth=1.5, label=label)
    axes.set_xlim(thresholds[0], 1.0)
    axes.set_ylim(0, max(0.05, 1.1 * max(rates)))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("threshold for every counted class")
    axes.legend(frameon=False)
    tidy(axes, "Pictures that would be flagged at another threshold")
    return as_svg(figure)


def _rates(rows: Mapping[str, tuple[float, list[float]]], title: str) -> str:
    figure = new_figure(8, 1.1 + 0.32 * len(rows))
    axes = figure.subplots()
    rates, bounds = zip(*rows.values(), strict=True)
    style = {"color": ARMS[0], "height": 0.62, "ecolor": INK, "capsize": 3}
    axes.barh(range(len(rows)), rates, xerr=whiskers(rates, bounds), **style)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, max(0.05, 1.08 * max(bound[1] for bound in bounds)))
    axes.xaxis.set_major_formatter("{x:.0%}")
    tidy(axes, title)
    return as_svg(figure)
