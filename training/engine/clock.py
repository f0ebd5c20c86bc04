"""Where a run stands, in words."""

import time

from .checkpoint import Progress


class Clock:
    """Step, parts of the loss and time left, at the pace since the run started or resumed."""

    def __init__(self, steps: int):
        self.steps = steps
        self.first: tuple[float, int] | None = None  # when, and at which step

    def line(self, progress: Progress) -> str:
        now = time.monotonic()
        self.first = self.first or (now, progress.step)
        line = f"step {progress.step} of {self.steps}"
        if progress.losses:
            line += "".join(f", {name} {value:.4f}" for name, value in progress.losses[-1].items())
        start, before = self.first
        if progress.step > before:
            pace = (now - start) / (progress.step - before)
            line += f", {pace * (self.steps - progress.step):.0f} s left"
        return line
