"""What a long audit adds up to, row by row: summary, rates by category and by threshold."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from ...drawing.columns import among
from ..columns import FILES, GROUPED, PICTURES, Sums, prompt_of
from ..opinion import Opinion
from ..report import Tally

STEPS = 100  # of the scores 0..1
GROUPS = among(PICTURES, GROUPED)


class Totals:
    """Counts over the rows of a store. `groups` of a row are the names of its categories."""

    def __init__(self, first: Opinion, second: Opinion | None = None):
        self.first, self.tally = first, Tally(first.preset, second, first.asked)
        self.files = Sums(FILES)
        self.highest: Counter[int] = Counter()  # of each picture, in STEPS
        self.groups: defaultdict[str, Sums] = defaultdict(lambda: Sums(GROUPS))

    def add(self, row: Mapping[str, Any]) -> None:
        self.files.add(row)
        if "unreadable" in row or "other" in row:
            return
        self.tally.add(row)
        scores = [
            found["score"]
            for found in row["detections"]
            if found["class"] in self.first.preset.counted_from and not found.get("unsure")
        ]
        self.highest[int(max(scores, default=0.0) * STEPS)] += 1
        for group in row.get("groups", ()):
            self.groups[group].add(row, prompt_of(row), row["flagged"])

    def summary(self) -> dict[str, Any]:
        """The report's summary, with what only long audits have."""
        groups = {name: sums.values() for name, sums in sorted(self.groups.items())}
        return {
            **self.tally.summary(self.first.detector),
            **self.files.values(),
            **({"categories": groups} if groups else {}),
            "flagged_by_threshold": self.by_threshold(),
        }

    def by_threshold(self) -> list[list[float]]:
        """[threshold, rate]: how often a counted class reaches the threshold.

        Thresholds go from the detector's floor, in steps of 0.05. Of no pictures there are none.
        """
        total = self.tally.total
        found: list[list[float]] = []
        if not total:
            return found
        for step in range(int(self.first.detector.floor * STEPS), STEPS, 5):
            above = sum(count for score, count in self.highest.items() if score >= step)
            found.append([step / STEPS, above / total])
        return found
