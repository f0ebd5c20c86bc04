"""What a long audit adds up to, row by row: summary, rates by category and by threshold."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..report import Opinion, Tally
from ..stats import wilson

STEPS = 100  # of the scores 0..1


class Totals:
    """Counts over the rows of a store. `groups` of a row are the names of its categories."""

    def __init__(self, first: Opinion, second: Opinion | None = None):
        self.first, self.tally = first, Tally(first.preset, second)
        self.counts: Counter[str] = Counter()
        self.highest: Counter[int] = Counter()  # of each picture, in STEPS
        self.group_images: Counter[str] = Counter()
        self.group_flagged: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        if "unreadable" in row or "other" in row:
            self.counts["unreadable" if "unreadable" in row else "other_files"] += 1
            return
        self.tally.add(row)
        self.counts["mislabelled"] += bool(row.get("mislabelled"))
        self.counts["animated"] += row.get("frames", 1) > 1
        scores = [
            found["score"]
            for found in row["detections"]
            if found["class"] in self.first.preset.thresholds
        ]
        self.highest[int(max(scores, default=0.0) * STEPS)] += 1
        for group in row.get("groups", ()):
            self.group_images[group] += 1
            self.group_flagged[group] += row["flagged"]

    def summary(self) -> dict[str, Any]:
        """The report's summary, with what only long audits have."""
        groups = {
            name: {
                "images": total,
                "flagged": self.group_flagged[name],
                "flagged_rate": self.group_flagged[name] / total,
                "flagged_rate_95": [
                    round(bound, 6) for bound in wilson(self.group_flagged[name], total)
                ],
            }
            for name, total in sorted(self.group_images.items())
        }
        return {
            **self.tally.summary(self.first.detector),
            **{
                name: self.counts[name]
                for name in ("unreadable", "other_files", "mislabelled", "animated")
            },
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
