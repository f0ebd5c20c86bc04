"""How far a node is: a bar, a line of text with the time left, and Cancel."""

import time

import comfy.model_management
import comfy.utils
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from ..options.words import Pace

EVERY = 0.5  # seconds between two lines of text


class Meter:
    """Progress on the node that runs now; it raises on Cancel.

    Call it with how much is done of `total`, which may become known late, and a picture to show.
    """

    def __init__(self, what: str, total: int = 1):
        self.what, self.pace, self.told = what, Pace(total), 0.0
        self.bar = comfy.utils.ProgressBar(total)

    def __call__(
        self, done: int, total: int | None = None, picture: Image.Image | None = None
    ) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.pace.total = total or self.pace.total
        self.bar.update_absolute(
            done, self.pace.total, ("JPEG", picture, 1000) if picture else None
        )
        line = f"{self.what} {done} of {self.pace.total}{self.pace.left(done)}"
        if time.monotonic() - self.told > EVERY or done == self.pace.total:
            self.told = time.monotonic()
            tell(line)


def tell(line: str) -> None:
    """Show a line of text on the node that runs now, on a server that runs it."""
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context and server:
        server.send_progress_text(line, context.node_id)
