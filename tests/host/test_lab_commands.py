"""Every command of the laboratory starts and says what it does; what they try is `long`."""

import json
import runpy
import sys

import pytest
from modular_safety_lora.lab.attacks import detectors, report
from modular_safety_lora.lab.benchmarks.__main__ import NAMES

COMMANDS = ["attacks", "gpu", "world", "benchmarks", *(f"benchmarks {name}" for name in NAMES)]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_does(comfyui, command, monkeypatch, capsys):
    assert len(NAMES) >= 13
    package, *name = command.split()
    monkeypatch.setattr(sys, "argv", [package, *name, "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module(f"modular_safety_lora.lab.{package}", run_name="__main__")
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
