"""Long training that can be stopped at any point and goes on from its last hundred steps."""

from pathlib import Path

import torch


class Kept:
    """The state of everything that learns, in one file that is replaced whole."""

    def __init__(self, file: Path | None, **parts):
        self.file, self.parts = file, parts

    def begin(self) -> int:
        """Load what was kept; the number of steps that it has behind it, 0 without a file."""
        if not (self.file and self.file.is_file()):
            return 0
        kept = torch.load(self.file, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(kept[name])
        return kept["step"]

    def save(self, step: int, every: int = 100) -> None:
        """Keep the state after a step, when it is the turn of one."""
        if self.file and step % every == 0:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            unfinished = self.file.with_suffix(".part")
            torch.save({"step": step, **state}, unfinished)
            unfinished.replace(self.file)
