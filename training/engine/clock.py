"""Where a run stands, in words."""

from ...options.words import Pace
from .checkpoint import Progress


class Clock:
    """Step, parts of the loss and time left, at the pace since the run started or resumed."""

    def __init__(self, steps: int):
        self.steps, self.pace = steps, Pace(steps)

    def line(self, progress: Progress) -> str:
        line = f"step {progress.step} of {self.steps}"
        if progress.losses:
            line += "".join(f", {name} {value:.4f}" for name, value in progress.losses[-1].items())
        return line + self.pace.left(progress.step)
