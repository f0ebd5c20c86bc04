"""What every gate does: look, tell the verdict, and put something else in a picture's place."""

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import torch
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..audit import censor
from ..options.errors import PackError
from ..options.words import amount
from ..provenance.record import PASSED, Look, Rules, looks
from .look import FAULTS, Inspector
from .seen import Finding
from .verdicts import Verdict, publish
from .wanted import RequireAudit

EVENT = "modular-safety-lora.withheld"
DONE = {
    "withhold": "withheld",
    "blur": "blurred",
    "black": "blackened",
    "stop": "kept back, and the run stopped",
}
BY = "require_audit"  # in the records of pictures
CHANNELS = (1, 3, 4)
NOTES = 1_000  # nodes whose words nobody fetched


class Closed(PackError, RuntimeError):
    """A gate lets nothing through, or not this."""


class Keeper:
    """The operator's wish, and what looks. With a `mistake` in the settings nothing passes."""

    def __init__(self, wanted: RequireAudit, inspector: Inspector, mistake: str = ""):
        self.wanted, self.inspector, self.mistake = wanted, inspector, mistake
        self._notes: dict[tuple[str, str], list[str]] = {}
        self._order: deque[tuple[str, str]] = deque(maxlen=NOTES)
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise Closed for a mistake in the settings."""
        if self.mistake:
            raise Closed(self.mistake)

    def tensor(self, images: torch.Tensor, where: str) -> torch.Tensor:
        """Pictures (B, H, W, C) or videos (B, T, H, W, C), float, those flagged replaced whole.

        What is given is not changed. Raises Closed for what can't be looked at, and with `stop`.
        """
        self.check()
        if images.ndim not in (4, 5) or images.shape[-1] not in CHANNELS or not images.numel():
            raise Closed(
                f"Nothing that can be looked at came, but a tensor of the shape"
                f" {tuple(images.shape)}, and this ComfyUI shows only pictures that were looked at"
                " (require_audit). See what made it."
            )
        videos = images if images.ndim == 5 else images[:, None]
        frames = (_array(frame) for video in videos for frame in video)
        try:
            found = list(self.inspector.pictures(frames))
        except FAULTS as error:
            raise Closed(
                "The pictures can't be looked at, and this ComfyUI shows only what was"
                f" (require_audit). {error}"
            ) from error
        each = videos.shape[1]
        joined = [_joined(found[at : at + each]) for at in range(0, len(found), each)]
        for finding in joined:
            self.tell(finding, where, **here())
        flagged = [place for place, finding in enumerate(joined) if finding.flagged]
        for place, finding in enumerate(joined):
            if not finding.flagged:
                self._keep(finding, [one.digest for one in found[place * each :][:each]])
        if not flagged:
            return images
        words = self._words(where, len(flagged), joined)
        if self.wanted.flagged == "stop":
            raise Closed(words)
        self._note(words, len(flagged), len(joined))
        out = videos.clone()
        for place in flagged:
            out[place] = hidden(out[place], self.wanted.flagged)
            self._keep(joined[place], self.inspector.remember(map(_array, out[place])))
        return out.reshape(images.shape)

    def tell(self, finding: Finding, where: str, **whose: str) -> None:
        """Publish a verdict. Raises what listeners raise."""
        publish(
            Verdict(
                where,
                finding.flagged,
                self.wanted.flagged if finding.flagged else PASSED,
                finding.digest,
                self.wanted.preset,
                self.inspector.detector(),
                counts=dict(finding.counts),
                reason=finding.reason,
                **whose,
            )
        )

    def tell_of_file(self, finding: Finding, user: str = "") -> None:
        """Publish what was found of a file at the door, and then keep it. Raises as `tell` does."""
        self.tell(finding, "door", user=user)
        self.inspector.keep(finding)

    def _keep(self, finding: Finding, pixels: Sequence[str]) -> None:
        """Keep what was found for the files of the pictures that go on, by their pixels."""
        opinion, detector, _ = self.inspector.rules()
        done = self.wanted.flagged if finding.flagged else PASSED
        counts = dict(finding.counts)
        looks.keep(
            Rules.of(BY, opinion.preset, detector),
            [
                Look(sha256=each, flagged=finding.flagged, done=done, counts=counts)
                for each in pixels
            ],
        )

    def _words(self, where: str, flagged: int, found: Sequence[Finding]) -> str:
        counts: Counter[str] = Counter()
        for finding in found:
            counts.update(finding.counts)
        seen = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        was, it = ("was", "it") if flagged == 1 else ("were", "them")
        came, way = "decoded", "change the prompt or the seed"
        if where == "input":
            came, way = "read", "choose another picture"
        done = DONE[self.wanted.flagged]
        return (
            f"{flagged} of {amount(len(found), 'picture')} {came} here {was} {done}. The preset"
            f" {self.wanted.preset} of this ComfyUI flags {it} ({seen}). A detector is sometimes"
            f" wrong: {way}, or ask whoever runs this ComfyUI."
        )

    def _note(self, words: str, flagged: int, total: int) -> None:
        """Keep words for the running node's result, and tell the client."""
        context = get_executing_context()
        if context is None:
            return
        place = context.prompt_id, context.node_id
        with self._lock:
            if len(self._order) == NOTES:
                self._notes.pop(self._order[0], None)
            self._order.append(place)
            self._notes.setdefault(place, []).append(words)
        server = PromptServer.instance
        told = {"prompt_id": place[0], "node": place[1], "message": words}
        told |= {"count": flagged, "of": total, "preset": self.wanted.preset}
        server.send_sync(EVENT, told, server.client_id)

    def notes(self, prompt_id: str, node_id: str) -> list[str]:
        """What was withheld while a node ran, in words; once."""
        with self._lock:
            return self._notes.pop((prompt_id, node_id), [])


def hidden(frames: torch.Tensor, how: str) -> torch.Tensor:
    """Something in the place of frames (T, H, W, C): the notice, or all of each blurred or black.

    Raises ChoiceError for another word.
    """
    count, height, width, _ = frames.shape
    whole = {"counted": True, "box": [0, 0, width, height]}
    report = {"images": [{"flagged": True, "detections": [whole]}] * count}
    return censor.apply(frames, report, how)


def _array(frame: torch.Tensor) -> np.ndarray:
    """A frame as nodes that save make numbers of it; numpy has no bfloat16."""
    return (frame.float() if frame.dtype == torch.bfloat16 else frame).numpy(force=True)


def here() -> dict[str, str]:
    """The prompt and the node that run now, and whose they are, as far as ComfyUI was told."""
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is None:
        return {}
    client = getattr(server, "client_id", None) or ""
    return {"prompt_id": context.prompt_id, "node_id": context.node_id, "client_id": client}


def _joined(found: Sequence[Finding]) -> Finding:
    """A video's frames as one finding."""
    if len(found) == 1:
        return found[0]
    counts: Counter[str] = Counter()
    for finding in found:
        counts.update(finding.counts)
    digest = hashlib.sha256("".join(finding.digest for finding in found).encode()).hexdigest()
    return Finding(digest, dict(counts))
