"""Where a run stands, in words."""

import time

from .checkpoint import Progress


class Clock:
    """Says where a run stands: step, parts of the loss, and time left.

    The time left is at the pace since it started or resumed.
    """

    def __init__(self, steps: int):
        self.steps, self.first = steps, None

    def line(self, progress: Progress) -> str:
        now = time.monotonic()
        self.first = self.first or (now, progress.step)
        line = f"step {progress.step} of {self.steps}"
        if progress.losses:
            line += "".join(f", {name} {value:.4f}" for name, value in progress.losses[-1].items())
        if progress.step > self.first[1]:
            pace = (now - self.first[0]) / (progress.step - self.first[1])
            line += f", {pace * (self.steps - progress.step):.0f} s left"
        return line
