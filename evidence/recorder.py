"""The recorder of this process: one log, and the signals that are made of its lines.

Nothing is written until it is started. `record` is for all who have something to say; what it says
of the prompt and its user comes from `who`, which ComfyUI's half sets.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .lines import Line
from .log import EvidenceError, Log

logger = logging.getLogger(__name__)


class Signal(Protocol):
    """What is told of every line, after it is on the disk; it never waits, and never raises."""

    def tell(self, line: Line, log: Log) -> None: ...


class Recorder:
    """Writes to a log, if there is one. `required`: what can't be recorded must not happen."""

    def __init__(self) -> None:
        self.who: Callable[[], Mapping[str, Any]] = dict
        self.log: Log | None = None
        self.required = False
        self.signals: tuple[Signal, ...] = ()
        self.failures = 0
        self._said = False

    def start(self, log: Log, required: bool, signals: tuple[Signal, ...] = ()) -> None:
        self.log, self.required, self.signals = log, required, signals
        self.failures, self._said = 0, False

    def stop(self) -> None:
        self.log, self.signals = None, ()

    @property
    def is_on(self) -> bool:
        return self.log is not None

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Write a line, with who asks for it. Raises EvidenceError where the log is required."""
        if self.log is None:
            return
        try:
            line = self.log.record(kind, {**self.who(), **facts})
        except EvidenceError as error:
            self.failures += 1
            if self.required:  # users of this ComfyUI need not know where its log lies
                logger.error("%s Nothing goes on until it can (evidence_log.required).", error)
                raise EvidenceError(
                    "This ComfyUI records what it makes, and can't write its evidence log. Nothing"
                    " goes on until it can. Its operator finds the reason in ComfyUI's own log."
                ) from error
            if not self._said:
                self._said = True
                logger.error("%s What happens from now on is not recorded.", error)
            return
        if self._said:
            self._said = False
            logger.error("The evidence log is written again; %d lines are missing.", self.failures)
        for each in self.signals:
            each.tell(line, self.log)


recorder = Recorder()  # of this process
record = recorder.record
