"""Figures for Prometheus: a text file that a node exporter reads (its textfile collector).

https://github.com/prometheus/node_exporter#textfile-collector. The file is replaced as a whole, at
most every `EVERY` seconds, in a thread of its own; nothing listens on the network.
"""

import datetime
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..storage.faults import told
from ..storage.whole import write_text
from .figures import (
    BY_REASON,
    ENDS,
    FAILED,
    FAULTS,
    FLAGGED,
    MERGES,
    PICTURES,
    PROBES,
    PROMPTS,
    SAMPLINGS,
    STARTS,
    WITHHELD,
)
from .lines import Line
from .log import Log

logger = logging.getLogger(__name__)
EVERY = 2.0  # seconds
NAME = "modular_safety_lora"
COUNTERS = {  # figure: (name, help)
    PROMPTS: ("prompts", "Prompts that were sent, those that ComfyUI did not take too."),
    ENDS: ("prompts_ended", "Those of them that ended; others wait, run, or were cut off."),
    STARTS: ("starts", "Starts of ComfyUI with the log on."),
    SAMPLINGS: ("samplings", "Samplings of models that hold a safety LoRA."),
    FAULTS: ("samplings_with_findings", "Those of them whose lock found something."),
    MERGES: ("merges", "Merges of safety and task LoRAs."),
    PROBES: ("probes", "Probes of what a merge leaves of its safety LoRAs."),
    FAILED: ("probes_not_passed", "Those of them that did not pass."),
    PICTURES: ("pictures", "Pictures that were audited."),
    FLAGGED: ("flagged", "Those of them that were flagged."),
    WITHHELD: ("withheld", "Flagged pictures that nobody saw as they were."),
}
ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metrics:
    """Writes the file soon after a line; what can't be written is said once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._text, self._new, self._said = "", threading.Event(), False
        threading.Thread(target=self._write, name="msl-metrics", daemon=True).start()

    def tell(self, line: Line, log: Log) -> None:
        self._text = as_text(line, log.totals)
        self._new.set()

    def flush(self) -> None:
        """Write the file now."""
        try:
            write_text(self.file, self._text)
        except OSError as error:
            if not self._said:
                logger.error("The metrics file can't be written: %s", told(error))
            self._said = True
        else:
            self._said = False

    def _write(self) -> None:
        while self._new.wait():
            self._new.clear()
            self.flush()
            time.sleep(EVERY)


def as_text(line: Line, totals: Mapping[str, int]) -> str:
    """The figures up to a line, in Prometheus' text format."""
    return "\n".join([*_samples(line, totals), ""])


def _samples(line: Line, totals: Mapping[str, int]) -> Iterator[str]:
    for figure, (name, words) in COUNTERS.items():
        yield from _head(f"{name}_total", words, "counter")
        yield f"{NAME}_{name}_total {totals.get(figure, 0)}"
    yield from _head("refusals_total", "What was refused, by reason.", "counter")
    for figure in sorted(each for each in totals if each.startswith(BY_REASON)):
        reason = figure.removeprefix(BY_REASON).translate(ESCAPED)
        yield f'{NAME}_refusals_total{{reason="{reason}"}} {totals[figure]}'
    yield from _head("log_lines", "Lines that the evidence log has had.", "gauge")
    yield f"{NAME}_log_lines {line.number}"
    yield from _head("log_time_seconds", "When its last line was written.", "gauge")
    yield f"{NAME}_log_time_seconds {datetime.datetime.fromisoformat(_iso(line.time)).timestamp()}"


def _iso(time: str) -> str:
    return time.replace("Z", "+00:00")  # Python 3.10 reads no Z


def _head(name: str, words: str, kind: str) -> tuple[str, str]:
    return f"# HELP {NAME}_{name} {words}", f"# TYPE {NAME}_{name} {kind}"
