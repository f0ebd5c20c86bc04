"""What a folder of a prompt-set audit goes on with, and what it refuses.

Nothing that was made is ever lost or mixed.
"""

import shutil

import comfy.model_management
import comfy.sd
import comfy.utils
import comfy_extras.nodes_apg
import comfy_extras.nodes_model_advanced
import pytest
from modular_safety_lora.audit.folders.store import StoreError
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.evaluation.job import AuditJob
from modular_safety_lora.evaluation.prompt_set import Defaults, Selection, read_prompts
from modular_safety_lora.evaluation.run import run
from modular_safety_lora.host.fingerprint import fingerprint
from modular_safety_lora.host.sampling import Sampling
from modular_safety_lora.lab import assets
from prompt_sets import I2P, ROWS, audited, job, rows_in


@pytest.fixture(scope="module")
def made(parts, tmp_path_factory):
    """A folder of a whole run."""
    place = tmp_path_factory.mktemp("made")
    (place / "i2p.csv").write_text(I2P + ROWS, encoding="utf-8")
    run(*parts, job(place / "i2p.csv", place / "run"))
    return place / "run"


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "run")


def test_a_stopped_run_goes_on_and_makes_nothing_twice(parts, i2p, tmp_path):
    whole = audited(parts, job(i2p, tmp_path / "whole"))
    made = []

    def stop(done, picture):
        made.append(done)
        if len(made) == 3:
            raise comfy.model_management.InterruptProcessingException()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(*parts, job(i2p, tmp_path / "run", on_picture=stop))
    assert made == [0, 1, 2]
    resumed = []

    def watch(done, picture):
        resumed.append((done, picture is None))

    again = audited(parts, job(i2p, tmp_path / "run", on_picture=watch))
    assert (again["about"].pop("run"), whole["about"].pop("run")) == ("run", "whole")
    assert again == whole
    assert resumed == [(2, True), (3, False)]


def test_filters_and_limits_go_on_in_one_store_and_the_report_says_which(parts, i2p, tmp_path):
    folder, made = tmp_path / "run", []

    def over(**selection) -> dict:
        made.clear()
        chosen = AuditJob(
            "i2p",
            read_prompts(i2p, selection=Selection(**selection)),
            Rules(PRESETS["all"]),
            Sampling(2),
            folder,
            on_picture=count,
        )
        return audited(parts, chosen)

    def count(done, picture):
        made.append(picture is not None)

    assert over(limit=1)["summary"]["images"] == sum(made) == 1
    whole = over()
    assert sum(made) == 2, "a wider selection makes what is missing"
    few = over(limit=1)
    assert (
        not any(made)
        and [row["key"] for row in few["images"]] == ["000001"]
        and rows_in(folder) == 3
    )
    assert few["summary"]["images"] == 1 and few["summary"]["rows_left_out"] == 2
    assert few["summary"]["prompts"] | {"sha256": "", "columns": {}} == {
        "file": "i2p.csv", "sha256": "", "category": "", "where": "", "limit": 1, "pictures": 1,
        "selected": 1, "columns": {},
    }  # fmt: skip
    assert "limit 1" in (folder / "report.html").read_text(encoding="utf-8")
    violent = over(category="violence", where="hard = 0")
    assert (
        not any(made)
        and [row["key"] for row in violent["images"]] == ["000002"]
        and rows_in(folder) == 3
    )
    assert (
        violent["summary"]["prompts"]["category"] == "violence"
        and violent["summary"]["prompts"]["where"] == "hard = 0"
    )
    assert over() == whole and not any(made) and whole["summary"]["rows_left_out"] == 0


@pytest.mark.parametrize("name", ["hot.csv", "i2p.csv"])
def test_another_prompt_file_is_refused_by_name_and_deletes_nothing(parts, folder, tmp_path, name):
    before = (folder / "report.json").read_bytes()
    other = tmp_path / name
    other.write_text(I2P + ROWS.splitlines()[0].replace("2319341", "5") + "\n", encoding="utf-8")
    message = (
        rf"holds 3 rows of an audit made with another prompt file \(i2p.csv, \w{{12}}; now {name},"
        r" \w{12}\).*another name"
    )
    with pytest.raises(StoreError, match=message):
        run(*parts, job(other, folder))
    assert rows_in(folder) == 3 and (folder / "report.json").read_bytes() == before


def test_the_same_file_under_another_name_goes_on_and_other_defaults_do_not(parts, i2p, folder):
    moved = i2p.rename(i2p.with_name("moved.csv"))
    assert run(*parts, job(moved, folder))["prompts"]["file"] == "moved.csv"
    wider = AuditJob(
        "i2p", read_prompts(moved, Defaults(width=64)), Rules(PRESETS["all"]), Sampling(2), folder
    )
    with pytest.raises(StoreError, match=r"made with another row defaults width \(512; now 64\)"):
        run(*parts, wider)


def test_another_model_or_sampling_does_not_go_on_with_the_rows(parts, i2p, folder, models):
    with pytest.raises(StoreError, match="made with another model"):
        run(*with_style(parts, models, 0.5, 0.5), job(i2p, folder))
    lora = comfy.utils.load_torch_file(str(models / "loras" / assets.STYLE))
    bypassed = comfy.sd.load_bypass_lora_for_models(*parts[:2], lora, 0.5, 0.0)[0]
    with pytest.raises(StoreError, match="made with another model"):
        run(bypassed, *parts[1:], job(i2p, folder))
    averaging = comfy_extras.nodes_apg.APG.execute(parts[0], 1.0, 5.0, 0.5).args[0]
    with pytest.raises(StoreError, match=r"3 rows, and it can't be known .* keeps 'prev_sigma'"):
        run(averaging, *parts[1:], job(i2p, folder))
    changed = AuditJob("i2p", read_prompts(i2p), Rules(PRESETS["all"]), Sampling(3), folder)
    with pytest.raises(StoreError, match="made with another sampling"):
        run(*parts, changed)
    with pytest.raises(StoreError, match=r"made with another preset \(all; now Un"):
        run(*parts, job(i2p, folder, preset="UnlearnDiffAtk from paths"))


def test_another_preset_counts_the_rows_again_and_makes_no_picture(parts, i2p, tmp_path):
    """A picture that was blurred by the former rules is not shown as one of the new ones."""
    fresh = audited(parts, job(i2p, tmp_path / "fresh", preset="all"))
    every = {"keep": "all, censored"}
    before = audited(parts, job(i2p, tmp_path / "run", preset="strict", **every))
    assert all("picture" in row for row in before["images"])
    made = []

    def watch(done, picture):
        made.append(picture)

    again = audited(parts, job(i2p, tmp_path / "run", preset="all", on_picture=watch, **every))
    assert made == [None] and again["summary"] == fresh["summary"]
    for row, new in zip(before["images"], again["images"], strict=True):
        assert ("picture" in new) == (new["reasons"] == row["reasons"] == [])


def with_style(parts, models, model_strength: float, clip_strength: float):
    """The parts with a LoRA on, by the stock loader."""
    lora = comfy.utils.load_torch_file(str(models / "loras" / assets.STYLE))
    return (
        *comfy.sd.load_lora_for_models(parts[0], parts[1], lora, model_strength, clip_strength),
        parts[2],
    )


def test_weights_that_no_file_filled_are_no_part_of_the_fingerprint(parts):
    """SD1.5 checkpoints have no text projection: ComfyUI leaves there what the memory held."""
    model, clip, vae = parts
    plain, weight = (
        fingerprint(model, clip, vae),
        clip.cond_stage_model.clip_l.transformer.text_projection.weight,
    )
    before = weight.detach().clone()
    try:
        weight.data.fill_(7.0)
        assert fingerprint(model, clip, vae) == plain
    finally:
        weight.data.copy_(before)


def test_the_fingerprint_is_the_same_for_clones_and_another_for_each_change(
    parts, models, i2p, tmp_path
):
    model, clip, vae = parts
    plain = fingerprint(model, clip, vae)
    assert fingerprint(model.clone(), clip.clone(), vae) == plain
    changed = [
        with_style(parts, models, *strengths)
        for strengths in ((0.5, 0.0), (0.6, 0.0), (0.0, 0.5), (0.5, 0.5))
    ]
    found = [fingerprint(*each) for each in changed]
    assert len({plain, *found}) == 5
    shifted = comfy_extras.nodes_model_advanced.RescaleCFG().patch(model, 0.7)[0]
    assert fingerprint(shifted, clip, vae) != plain
    run(*changed[3], job(i2p, tmp_path / "run"))  # its patches are on the shared weights now
    assert [fingerprint(*each) for each in changed] == found and fingerprint(
        model, clip, vae
    ) == plain
