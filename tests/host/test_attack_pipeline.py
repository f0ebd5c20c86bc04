"""The attack suite from end to end, on its smallest settings: calibrate, fresh, report.

Its pictures are those that ship: every style draws as the harmless task does, and a weapon as a
tool. So nothing is fetched, and no score means anything.
"""

import json
import re
import sys
from dataclasses import replace

import pytest
from modular_safety_lora.lab.attacks import __main__ as command
from modular_safety_lora.lab.attacks import (
    attackers,
    detectors,
    encoder,
    fitting,
    moment_products,
    report,
    run,
    sources,
    trained_loras,
)
from modular_safety_lora.lab.world import pictures, recipe
from modular_safety_lora.lab.world.sets import SETS, TOOLS, WEAPONS

pytestmark = [pytest.mark.usefixtures("one_thread", "no_chart"), pytest.mark.long]


def as_the_task(sets=SETS) -> dict:
    shipped = pictures.task_pictures()
    tools = [shipped[name] for name in TOOLS if name in shipped]
    return {each.style: shipped | dict(zip(WEAPONS, tools, strict=False)) for each in sets}


@pytest.fixture
def suite(comfyui, tmp_path, monkeypatch):
    """The command on few steps, prompts and merges; it gives the folder of what it writes."""
    monkeypatch.setattr(pictures, "named", as_the_task)
    monkeypatch.setattr(pictures, "CACHE", tmp_path / "world")
    monkeypatch.setattr(sources, "MOST", 2)
    for prompts in ("CONCEPTS", "SEEN"):
        monkeypatch.setattr(recipe, prompts, getattr(recipe, prompts)[:3])
    monkeypatch.setattr(attackers, "OPEN", attackers.OPEN[:2])
    private = moment_products.private
    monkeypatch.setattr(moment_products, "private", lambda seed: private(seed)[:1])
    monkeypatch.setattr(trained_loras, "TOLD", replace(trained_loras.TOLD, task_steps=2))
    monkeypatch.setattr(attackers, "BY_PICTURES", replace(attackers.BY_PICTURES, task_steps=2))
    light = trained_loras.KINDS["light"]
    erased = {"light": replace(light.safety["light"], steps=1)}
    kinds = {"light": replace(light, safety=erased, retained=recipe.RETAINED[:2])}
    for module in (run, trained_loras):
        monkeypatch.setattr(module, "KINDS", kinds)
    for trainer in (fitting, encoder):
        monkeypatch.setattr(trainer, "STEPS", 2)
    for prompts in ("SEALED", "HELD_OUT", "LOOKED_AT", "AUDITED"):
        monkeypatch.setattr(moment_products, prompts, getattr(moment_products, prompts)[:1])
    monkeypatch.setattr(moment_products, "PICTURE_STEPS", 2)
    few = {"calibrate": ("negated",), "fresh": run.PHASES["fresh"].attackers}
    for name, names in few.items():
        phase = replace(run.PHASES[name], modules=1, merges=1, audited=1, attackers=names)
        monkeypatch.setitem(run.PHASES, name, phase)
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.setattr(report, "THRESHOLDS", tmp_path / "thresholds.json")

    def suite(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["attacks", *arguments])
        command.main()
        return tmp_path

    return suite


def test_every_phase_runs_and_what_was_not_measured_says_so(suite):
    suite("--phase", "calibrate")
    folder = suite("--phase", "fresh")
    lines = (folder / "attacks" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [each for line in lines if "group" in (each := json.loads(line))]
    groups = {row["group"] for row in rows}
    assert groups == {"harmless", "on-top", "anchored", "half", *run.PHASES["fresh"].attackers}
    # a safety module of one step does next to nothing
    assert all(row["back"] is None and "not measured" in row["why"] for row in rows)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["detectors"].keys() == set(detectors.NAMES)
    assert results["detectors"][detectors.BACK]["auc"] is None
    table = (folder / "table.md").read_text("utf-8")
    assert re.search(rf"^\| {re.escape(detectors.BACK)} +\| not measured +\|", table, re.MULTILINE)
    assert (folder / "chart.png").is_file()
