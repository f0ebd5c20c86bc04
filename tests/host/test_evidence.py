"""What ComfyUI's half writes into the evidence log, and what a log that can't be written stops."""

import dataclasses
import logging
from pathlib import Path

import comfy_extras.nodes_model_merging as mixing
import folder_paths
import pytest
import torch
from comfy.model_base import BaseModel
from comfy_api.latest import InputImpl
from comfy_execution.utils import CurrentNodeContext
from films import CUP, film
from modular_safety_lora.evidence.files import FOLDER
from modular_safety_lora.evidence.log import EvidenceError
from modular_safety_lora.evidence.recorder import recorder
from modular_safety_lora.evidence.verify import read_lines, verify
from modular_safety_lora.lab import assets
from modular_safety_lora.merge import watchers
from modular_safety_lora.merge.merge import Task, merge
from modular_safety_lora.modules.errors import (
    ModuleFileError,
    NoLock,
    NotAllowed,
    NotTrusted,
    SafetyError,
)
from modular_safety_lora.modules.files import load_safety, load_task
from modular_safety_lora.nodes import policy, recording, users
from modular_safety_lora.nodes.load import LoadSafetyLora
from modular_safety_lora.nodes.merge import ModularMerge
from modular_safety_lora.nodes.nudity_audit import AuditStopped, NudityAudit
from modular_safety_lora.nodes.settings import operator
from modular_safety_lora.nodes.video_audit import AuditVideo
from operator_settings import load

PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # of RFC 8032's first test


@pytest.fixture(scope="module")
def stage(stage):
    """One merge and its texts, but where a test makes another."""
    return dataclasses.replace(stage, kept={})


@pytest.fixture
def logged(write_settings):
    """Settings with the log on, held as ComfyUI holds them; gives the lines that were written."""
    taken_away = []

    def hold(settings: dict):
        write_settings({"evidence_log": True} | settings)
        taken_away.extend([policy.install(), recording.install()])
        return lines

    yield hold
    for each in reversed(taken_away):
        each()


def folder() -> Path:
    return Path(folder_paths.get_user_directory(), FOLDER)


def lines(*kinds: str) -> list[dict]:
    """The facts of the lines of these kinds."""
    return [dict(line.facts) for line in read_lines(folder()) if line.kind in kinds]


@pytest.fixture(scope="module")
def style(models):
    return load_task(models / "loras" / assets.STYLE, assets.STYLE)


def test_without_the_setting_nothing_is_watched_or_written(stage, write_settings):
    before = BaseModel.apply_model
    write_settings({})
    recording.install()()
    recording.install()
    assert not watchers.samplings and not watchers.refusals and not recorder.is_on
    assert BaseModel.apply_model is before
    assert stage.run()().isfinite().all() and not folder().exists()


def test_a_sampling_and_a_refusal_are_lines_with_their_digests(stage, logged):
    logged({"require_lock": True})
    assert stage.run()().isfinite().all()
    with pytest.raises(NoLock):
        stage.run(stage.base)()
    lenient = merge(stage.base, [stage.safety], (), stage.base_clip, foreign="report").model
    with pytest.raises(SafetyError, match="not whole"):
        stage.run(mixing.ModelMergeSimple().merge(lenient, stage.base, 0.5)[0])()
    (sampled,) = lines("sampled")
    assert sampled["base_sha256"] == stage.plain.report["base_sha256"]
    assert [each["sha256"] for each in sampled["loras"]] == [stage.safety.sha256]
    assert sampled["findings"] == [] and "prompts" not in sampled
    refused = lines("refused")
    assert [each["reason"] for each in refused] == ["NoLock", "SafetyError"], "each once"
    assert "went through Modular Merge" in refused[0]["message"]
    assert lines("started") == [{"in_force": policy.in_force(operator())}]
    assert verify(folder()).whole


def test_what_a_lock_only_reports_is_in_the_line(stage, logged):
    logged({})
    lenient = merge(stage.base, [stage.safety], (), stage.base_clip, foreign="report").model
    stage.run(mixing.ModelMergeSimple().merge(lenient, stage.base, 0.5)[0])()
    (sampled,) = lines("sampled")
    assert len(sampled["findings"]) == 1 and "is not whole" in sampled["findings"][0]


@pytest.mark.parametrize("required", [True, False])
def test_a_log_that_can_not_be_written_stops_sampling_where_it_is_required(
    stage, logged, required, caplog
):
    folder().parent.mkdir(exist_ok=True)
    folder().write_text("in the way")
    logged({"evidence_log": {"required": required}})
    assert "can't be written" in caplog.text, "at the start"
    if required:
        with pytest.raises(EvidenceError, match="Nothing goes on until it can"):
            stage.run()()
    else:
        assert stage.run()().isfinite().all()
    caplog.clear()
    folder().unlink()
    assert stage.run()().isfinite().all()
    assert len(lines("sampled")) == 1


def test_a_refusal_stays_one_when_it_can_not_be_written(stage, logged):
    logged({"require_lock": True})
    for file in folder().iterdir():
        file.unlink()
    folder().rmdir()
    folder().write_text("in the way")
    with pytest.raises(NoLock):
        stage.run(stage.base)()


def test_merges_loads_and_audits_are_lines(stage, logged, models, style, tmp_path):
    logged({})
    safety = load("unsigned")
    ModularMerge.execute(stage.base, safety, tasks=[Task(style, 0.5, 0.0)])
    (merged,) = lines("merged")
    roles = {each["role"]: (each["sha256"], each["strength"]) for each in merged["loras"]}
    assert roles["task"] == (style.sha256, 0.5) and roles["safety"][0] == safety[0].sha256
    assert merged["retained_safety"] > 0.9 and merged["losses"] == []
    NudityAudit.execute(
        torch.zeros(2, 64, 64, 3), preset="strict", threshold=0.0, action="black", classes=""
    )
    with pytest.raises(AuditStopped):
        NudityAudit.execute(
            torch.zeros(0, 64, 64, 3), preset="strict", threshold=0.0, action="stop", classes=""
        )
    video = InputImpl.VideoFromFile(str(film(tmp_path / "cup.mp4", lambda _: CUP, seconds=1.0)))
    AuditVideo.execute(video, preset="strict", action="black")
    one, none, film_line = lines("audited")
    assert film_line["by"] == "Audit Video" and film_line["done"] == "black"
    assert film_line["images"] == 2 and film_line["flagged"] == 0
    assert one["by"] == "Nudity Audit" and one["done"] == "black" and one["preset"] == "strict"
    assert (one["images"], one["flagged"], one["counts"]) == (2, 0, {})
    assert none["images"] == 0


def test_a_gates_verdict_is_a_line(logged, monkeypatch):
    said = {"flagged": True, "done": "withhold", "preset": "strict"}
    more = {"reason": "", "counts": {}, "prompt_id": "p", "node_id": "9", "client_id": "c"}
    logged({})
    recording.verdict(dataclasses.make_dataclass("Verdict", said | more)(**said, **more))
    (told,) = lines("verdict")
    who = {"authenticated": False, "prompt_id": "p", "client": "c", "node": "9"}
    assert told == who | said and recorder.log.totals["withheld"] == 1
    monkeypatch.setitem(users._users, "p", "anna")
    with CurrentNodeContext("p", "9"):  # as a VAE decodes
        recording.verdict(dataclasses.make_dataclass("Verdict", said | more)(**said, **more))
    assert lines("verdict")[1]["user"] == "anna"


def test_what_a_loader_or_a_merge_refuses_is_a_line(stage, logged):
    logged({"trusted_keys": [PUBLIC]})
    with pytest.raises(NotTrusted):
        load("unsigned")
    assert [each["reason"] for each in lines("refused")] == ["NotTrusted"]


def test_only_allowed_task_loras_are_merged_and_sample(stage, logged, style):
    ours = {"require_lock": True, "allowed_tasks": [style.sha256]}
    logged(ours)
    allowed = stage.merged(Task(style, 0.5, 0.5)).model
    assert stage.run(allowed)().isfinite().all()
    assert stage.run()().isfinite().all(), "without any"
    other = dataclasses.replace(style, name="other.safetensors", sha256="f" * 64)
    with pytest.raises(NotAllowed, match="other.safetensors is not on this ComfyUI's list of allo"):
        ModularMerge.execute(stage.base, [stage.safety], tasks=[Task(other, 0.5, 0.0)])
    with pytest.raises(NotAllowed, match="other.safetensors is not on .*begins with ffffffffffff"):
        stage.run(stage.merged(Task(other, 0.5, 0.0)).model)()
    assert [each["reason"] for each in lines("refused")] == ["NotAllowed"] * 2, "each once"


@pytest.mark.long
def test_with_a_list_of_task_loras_nothing_else_is_on_the_model(stage, logged, style):
    logged({"require_lock": True, "allowed_tasks": [style.sha256]})
    patched = stage.base.clone()
    key = "diffusion_model.out.2.bias"
    patched.add_patches({key: ("diff", (torch.full((4,), 1e-3),))})
    with pytest.raises(NotAllowed, match="Something other than Modular Merge changed this model"):
        stage.run(stage.merged(model=patched).model)()
    clip = stage.base_clip.clone()
    weight = next(iter(clip.patcher.model_state_dict()))
    clip.patcher.add_patches({weight: ("diff", (torch.zeros(1),))})
    with pytest.raises(NotAllowed, match="Something other than Modular Merge"):
        stage.run(merge(stage.base, [stage.safety], (), clip).model)()


def test_a_change_of_what_is_read_at_the_start_is_told_once(write_settings, logged, caplog):
    logged({})
    caplog.clear()
    operator()
    assert not caplog.records
    write_settings({"evidence_log": True, "require_lock": True, "trusted_keys": [PUBLIC]})
    operator()
    operator()
    (told,) = caplog.records
    assert told.levelno == logging.ERROR
    assert "changed: require_lock. ComfyUI reads this when it starts" in told.getMessage()
    write_settings({"evidence_log": False, "require_lock": True})
    operator()
    assert "changed: evidence_log, require_lock" in caplog.records[-1].getMessage()
    write_settings({"evidence_log": True})
    operator()
    assert len(caplog.records) == 2


def test_the_metrics_file_has_what_was_sampled(stage, logged, tmp_path):
    logged({"metrics_file": str(tmp_path / "msl.prom")})
    stage.run()()
    recorder.signals[0].flush()
    text = (tmp_path / "msl.prom").read_text()
    assert "modular_safety_lora_samplings_total 1\n" in text


def test_a_module_of_a_wrong_pin_is_refused_with_its_kind(logged, models):
    logged({})
    seal = load_safety(models / "loras" / assets.SAFETY, assets.SAFETY).sha256
    LoadSafetyLora.execute("unsigned.safetensors", sha256=seal)
    with pytest.raises(ModuleFileError):
        LoadSafetyLora.execute("unsigned.safetensors", sha256="0" * 64)
    assert [each["reason"] for each in lines("refused")] == ["ModuleFileError"]
