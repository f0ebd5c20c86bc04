"""A comparison as an HTML page that needs nothing else: verdict, plots, tables, what changed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..options.language import say, sentence, spoken
from .about import in_short
from .compare import LEFT_OUT, differing, left_out, looked_at, tables, verdict
from .compared_chart import plots
from .page import rendered
from .pairing import Paired
from .thumbnails import MOST, Thumbnail

Find = Callable[[str, int, Mapping[str, Any]], Thumbnail | None]


@spoken()
def compared_page(comparison: Mapping[str, Any], pairing: Paired, find: Find) -> str:
    """HTML of a comparison.

    `find` gives the thumbnail of a picture by the audit's name, its place in that audit's own
    report, and its row; None where there is none.
    """
    names = list(pairing.reports)
    return rendered(
        "compared_page",
        title=say("{first} and {last} compared", first=", ".join(names[:-1]), last=names[-1]),
        facts=[
            *((name, in_short(pairing.reports[name].get("about"))) for name in names),
            (say("looked at"), looked_at(comparison)),
        ],
        verdict=verdict(comparison),
        plots=plots(comparison),
        tables=tables(comparison),
        left_out=[say(LEFT_OUT), *left_out(comparison)] if any(pairing.alone.values()) else [],
        differing=sentence(differing(len(comparison["changed"]))),
        changed=_changed(comparison["changed"], pairing, find),
        count=len(comparison["changed"]),
    )


def _changed(
    places: Sequence[int], pairing: Paired, find: Find
) -> list[tuple[str, list[tuple[str, Thumbnail]]]]:
    """A row of thumbnails for each picture whose verdict differs, as many as a page holds."""
    rows = []
    for place in places[: MOST // len(pairing.reports)]:
        found = []
        for name, report in pairing.reports.items():
            row = report["images"][place]
            small = find(name, pairing.places[name][place], row)
            found += [(name, small)] if small else []
        label = (
            pairing.labels[place] if pairing.labels else say("picture {number}", number=place + 1)
        )
        prompt = next(iter(pairing.reports.values()))["images"][place].get("prompt")
        rows += [(f"{label}: {prompt}" if prompt else str(label), found)] if found else []
    return rows
