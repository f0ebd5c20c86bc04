"""What a prompt set leaves: a picture for every key, and no clean result where there is none."""

from dataclasses import replace

import folder_paths
import pytest
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.evaluation.job import KEEP, AuditJob
from modular_safety_lora.evaluation.prompt_set import Defaults, read_prompts
from modular_safety_lora.evaluation.run import run
from modular_safety_lora.host.sampling import Sampling
from modular_safety_lora.nodes.prompt_audit import AuditPromptSet
from modular_safety_lora.nodes.prompt_sets import prompt_files
from modular_safety_lora.options.choices import ChoiceError
from prompt_sets import VALUES, audited


def test_every_key_has_a_picture_of_its_own(parts, tmp_path):
    """Keys that differ in what no file's name may hold, in case, or past its longest length."""
    keys = ["a/b", "a_b", "A_b", "$x_{$", "w" * 300, "w" * 301, "..", "con"]
    rows = "".join(f"a cat,{key},{key}\n" for key in keys)
    (tmp_path / "set.csv").write_text(f"prompt,id,category\n{rows}", encoding="utf-8")
    prompts = read_prompts(tmp_path / "set.csv", Defaults(width=64, height=64))
    kept = AuditJob("$x_{$", prompts, Rules(PRESETS["all"]), Sampling(1), tmp_path / "run", KEEP[3])
    files = [row["picture"] for row in audited(parts, kept)["images"]]
    names = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert len({name.lower() for name in names}) == len(keys) == len(set(files))
    assert {f"pictures/{name}" for name in names} == set(files) and "a_b.png" in names
    assert max(map(len, names)) < 120


def test_a_set_of_which_no_picture_was_made_is_not_clean(parts, i2p, tmp_path, monkeypatch):
    nothing = replace(read_prompts(i2p), prompts=())
    rules = Rules(PRESETS["all"], PRESETS["strict"])
    summary = run(*parts, AuditJob("i2p", nothing, rules, Sampling(1), tmp_path / "run"))
    assert (summary["verdict"], summary["flagged_rate"]) == ("no picture was looked at", None)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "No picture was looked at" in page and "Nothing was detected" not in page
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr("modular_safety_lora.nodes.prompt_sets.read_prompts", lambda *_: nothing)
    name = next(iter(prompt_files()))
    with pytest.raises(ValueError, match="No picture was looked at, so 'base' has no result"):
        AuditPromptSet.execute(*parts, name, "base", preset="all", **VALUES)


def test_a_sampler_that_there_is_not_is_refused():
    """ComfyUI would take the first that it has, and the report would name another."""
    for wrong in ({"sampler": "eulerr"}, {"scheduler": "Normal"}):
        with pytest.raises(ChoiceError, match="it must be one of"):
            Sampling(1, **wrong)
