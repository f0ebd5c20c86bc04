"""Every command of the laboratory starts and says what it does; what they try is `long`."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from modular_safety_lora.lab import benchmarks
from modular_safety_lora.lab.attacks import detectors, report

BENCHMARKS = sorted(
    path.stem
    for path in Path(benchmarks.__file__).parent.glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8") and path.stem != "harness"
)
COMMANDS = ["attacks", "gpu", "world", *(f"benchmarks.{name}" for name in BENCHMARKS)]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_does(comfyui, command, monkeypatch, capsys):
    assert len(BENCHMARKS) == 13
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module(f"modular_safety_lora.lab.{command}", run_name="__main__")
    told = capsys.readouterr().out
    assert not done.value.code and "usage:" in told and len(told.splitlines()) > 8


def test_the_table_of_attacks_is_what_the_report_makes_of_the_scores_that_are_kept():
    kept = json.loads((report.FOLDER / "results.json").read_text(encoding="utf-8"))
    names = detectors.NAMES
    assert kept["columns"][-len(names) :] == list(names)
    rows = []
    for merge, (group, flagged, more, *scores) in kept["merges"].items():
        row = {"merge": merge, "group": group, "scores": dict(zip(names, scores, strict=True))}
        rows.append(row | ({} if flagged is None else {"flagged": flagged, "more": more}))
    table = (report.FOLDER / "table.md").read_text(encoding="utf-8")
    found, groups = report.summed(rows)
    assert report.tables(found, groups) == table
    assert json.loads(json.dumps([found, groups])) == [kept["detectors"], kept["groups"]]
