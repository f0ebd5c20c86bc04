"""The log as a page that needs nothing else: what happened, by day, by user, by verdict."""

import datetime
from collections.abc import Mapping
from pathlib import Path

from ..audit.page import rendered
from ..drawing.figures import BARS, HELD, LINES, LOW, as_svg, new_figure, tidy
from ..modules import errors
from ..options.words import amount
from .figures import FAULTS, FLAGGED, PICTURES, REFUSALS, SAMPLINGS, WITHHELD
from .summary import SHOWN, Summary
from .verify import Verified

DAYS = 60  # the newest, in the plot
LABELS = 7  # of days, below the plot
# colour and line of each figure
MADE = {SAMPLINGS: (HELD, "o-"), PICTURES: (LINES[0], "s--")}
NOT_MADE = {FLAGGED: (BARS, "o-"), WITHHELD: (LOW, "s--"), REFUSALS: (LINES[1], "^:")}
USERS = 50  # with most refusals and flagged pictures, in the table


def page(found: Summary, verified: Verified, place: Path) -> str:
    """HTML of a log's figures and of whether it is whole; texts in it are escaped."""
    total = found.total
    tiles = [(each, total[each], each in (FAULTS, REFUSALS, FLAGGED)) for each in SHOWN]
    users = sorted(found.users, key=lambda each: _weight(found.users[each]), reverse=True)
    return rendered(
        "log_page",
        Path(__file__).parent,
        title="Evidence log",
        facts=[
            ("folder", str(place)),
            ("from", _shown(found.first)),
            ("to", _shown(found.last)),
            ("last line", f"{verified.last}, digest {verified.digest}"),
            ("page made", _shown(datetime.datetime.now(datetime.timezone.utc).isoformat())),
        ],
        lines=amount(found.lines, "line"),
        verified=verified,
        tiles=tiles,
        unended=amount(found.unended, "prompt") if found.unended else "",
        plot=_plot(found) if found.days else "",
        heads={each: each.replace("samplings with", "with") for each in SHOWN},
        reasons=[(each, _words(each), count) for each, count in found.reasons.items()],
        tables=[
            ("By user", "user", SHOWN, {each: found.users[each] for each in users[:USERS]}),
            ("By day", "day", SHOWN, dict(sorted(found.days.items(), reverse=True)[:DAYS])),
            ("By preset of the audit", "preset", SHOWN[SHOWN.index(PICTURES) :], found.presets),
        ],
        left_out=max(0, len(users) - USERS),
    )


def _words(reason: str) -> str:
    """What a reason of a refusal says, for people; empty for one that is not the pack's."""
    return str(getattr(vars(errors).get(reason), "__doc__", None) or "")


def _weight(row: Mapping[str, int]) -> tuple[int, int]:
    return row.get(REFUSALS, 0) + row.get(FLAGGED, 0), row.get(SAMPLINGS, 0)


def _shown(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC" if time else ""


def _plot(found: Summary) -> str:
    """The newest days: what was made above, and below it, on a scale of its own, what was not."""
    days = sorted(found.days)[-DAYS:]
    figure = new_figure(5.6, 4.2)
    for axes, series in zip(figure.subplots(2, 1, sharex=True), (MADE, NOT_MADE), strict=True):
        tidy(axes)
        for name, (colour, line) in series.items():
            values = [found.days[day][name] for day in days]
            axes.plot(range(len(days)), values, line, label=name, color=colour, markersize=4)
        axes.set_ylim(bottom=0)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
    step = -(-len(days) // LABELS)
    axes.set_xticks(range(0, len(days), step), [day[5:] for day in days[::step]])
    return as_svg(figure)
