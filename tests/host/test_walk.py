"""Every stock node between Modular Merge and the sampler: what the lock sees of it.

docs/walk.md must say the same.
"""

import gc
import os
from collections import Counter
from dataclasses import dataclass

import comfy.model_management
import comfy.sd
import pytest
import torch
from attacks import BEYOND
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.merge import lock
from walk import (
    FOREIGN,
    GUIDANCE,
    LARGER,
    LOST,
    NOT_RUN,
    STOPPED,
    TOO_LARGE,
    UNCHANGED,
    Case,
    Outcome,
    Walk,
)
from walk_marks import Marks
from walk_measure import Watch
from walk_parts import SIDE, Parts, seeded_files

import nodes

DOCUMENT = PACK / "docs" / "walk.md"
ANEW = "Run `python dev.py generate`, and look at what changed."
DECLARED = {  # what loses the lock, and the row of the threat model that says so
    "CheckpointLoaderSimple": "KSampler on the base",
    "unCLIPCheckpointLoader": "KSampler on the base",
    "CheckpointLoader": "KSampler on the base",
    "ImageOnlyCheckpointLoader": "KSampler on the base",
    "UNETLoader": "KSampler on the base",
    "CLIPLoader": "CLIPTextEncode with the base's text encoder",
    "CheckpointSave": "ModelSave of the merged model, and Load Diffusion Model",
    "ImageOnlyCheckpointSave": "ModelSave of the merged model, and Load Diffusion Model",
    "ModelSave": "ModelSave of the merged model, and Load Diffusion Model",
    "CLIPSave": "ModelSave of the merged model, and Load Diffusion Model",
    "ModelMergeSimple, the base as model1": "ModelMergeSimple of base and merged",
    "ModelMergeBlocks, the base as model1": "ModelMergeBlocks of base and merged",
    "ModelMergeSD1, the base as model1": "ModelMergeBlocks of base and merged",
    "ModelMergeSubtract, the base as model1": "ModelMergeSubtract of base and merged",
    "ModelMergeAdd, the base as model1": "ModelMergeSubtract of base and merged",
    "CLIPMergeSimple, the base as clip1": "CLIPMergeSimple of base and merged",
    "CLIPMergeSubtract, the base as clip1": "CLIPMergeSimple of base and merged",
    "CLIPMergeAdd, the base as clip1": "CLIPMergeSimple of base and merged",
    "DualModelGuider, the base as model": (
        "DualModelGuider on the base with the merged model as its second"
    ),
}
NO_FILE = {"DiffusersLoader"}  # a folder of a format of its own
HARMLESS = (  # nothing about them changes a weight
    "LoraLoader, strengths 0",
    "LoraLoader, strength_model 0, of a LoRA without text layers",
    "CreateHookLora, strengths 0",
    "ModelMergeSimple",
    "ModelMergeSimple, the base as model2",
    "ModelMergeBlocks, ratios 1, and the base as model2",
)
# remembered by the host's nodes that select a device
REMEMBERED = {"_select_base_load_device", "_select_base_offload_device"}


@dataclass(frozen=True)
class Walked:
    walk: Walk
    rows: dict[str, Outcome]
    left: dict[str, list[str]]  # by case: what it changed beside what it returned


@pytest.fixture(scope="module")
def walked(stage, models, tmp_path_factory):
    """The walk, once; the host's list of nodes is as before when it ends."""
    known = dict(nodes.NODE_CLASS_MAPPINGS), dict(nodes.NODE_DISPLAY_NAME_MAPPINGS)
    checkpoints = models / "checkpoints"
    vae = comfy.sd.load_checkpoint_guess_config(
        str(checkpoints / stage.checkpoint), output_clip=False
    )[2]
    # TorchCompileModel's network, without a minute of compiling it
    torch.compiler.set_stance("force_eager")
    with (
        seeded_files(checkpoints, tmp_path_factory.mktemp("walk")),
        torch.inference_mode(),
        Watch() as watch,
    ):
        walk = Walk(Parts(stage, vae), watch)
        gc.freeze()  # the host collects garbage at every load, and all nodes are in memory by now
        rows, left, marks = {}, {}, Marks(stage, walk.parts.merged)
        for case in walk.cases():
            rows[case.name] = walk.outcome(case)
            left[case.name] = marks.left_behind()
        yield Walked(walk, rows, left)
    torch.compiler.set_stance("default")
    comfy.model_management.unload_all_models()
    for mapping, then in zip(
        (nodes.NODE_CLASS_MAPPINGS, nodes.NODE_DISPLAY_NAME_MAPPINGS), known, strict=True
    ):
        mapping.clear()
        mapping.update(then)


def named(rows: dict[str, Outcome], kind: str) -> set[str]:
    return {name for name, outcome in rows.items() if outcome.kind == kind}


def table(rows: dict[str, Outcome]) -> list[str]:
    order = [LOST, STOPPED, GUIDANCE, UNCHANGED, FOREIGN, NOT_RUN]
    lines = []
    for name, outcome in sorted(rows.items(), key=lambda row: (order.index(row[1].kind), row[0])):
        declared = f"; declared: {DECLARED[name]}" if name in DECLARED else ""
        lines.append(f"| {name} | {outcome.kind} | {outcome.why}{declared} |")
    return lines


def document(walked: Walked) -> str:
    count = Counter(outcome.kind for outcome in walked.rows.values())
    return f"""# Every stock node, between Modular Merge and the sampler

Made by `tests/host/test_walk.py`, which fails when a row is no longer true or a node is missing.
{ANEW}

Of the nodes of ComfyUI itself (not those that call services), the {len(walked.walk.nodes)} that \
take or return a model, text
encoder, guider, sampler, conditioning, hooks, LoRA, model patch or ControlNet, or take anything, \
are called as ComfyUI's
executor calls them, on a small model of SD1.5's shape. What they return is carried on to a \
sampling of two steps on 32x32
pixels (64x64 for {", ".join(sorted(LARGER))}). Inputs have their
defaults, but for sizes, steps and tolerances, which are small; files, pictures and networks that
they ask for are seeded. A node that takes several models or text encoders is also \
tried with the base as each of them.

What is said is measured: each layer of the network that computes gives on fixed inputs what it \
gives with the safety module
by ComfyUI's own LoRA loader, at every step and every encoding, or does not; and \
the picture is the safe one, or is not.

| outcome | rows | what it says |
| --- | --- | --- |
| {LOST} | {count[LOST]} | samples or saves without a lock, or with other weights; \
each is declared in the threat model |
| {STOPPED} | {count[STOPPED]} | the lock ends the run: \
with these defaults the node changes weights |
| {GUIDANCE} | {count[GUIDANCE]} | another picture, from the safe weights |
| {UNCHANGED} | {count[UNCHANGED]} | the safe picture, from the safe weights |
| {FOREIGN} | {count[FOREIGN]} | it, or the sampling after it, raises for this model; \
nothing is said of its own family |
| {NOT_RUN} | {count[NOT_RUN]} | the node was not called |

| node | outcome | why |
| --- | --- | --- |
""" + "\n".join([*table(walked.rows), ""])


def test_the_measure_knows_the_safe_weights_from_the_base(walked):
    walk, stage = walked.walk, walked.walk.parts.stage
    assert torch.allclose(walk.safe[SIDE], walk.expected, rtol=1e-3, atol=1e-4)
    walk.watch.clear()
    assert not torch.allclose(
        walk.parts.run(stage.base, stage.base_clip), walk.safe[SIDE], rtol=1e-2, atol=1e-2
    )
    assert {what for what, _, distance in walk.watch.seen if distance > 0.05} == {
        "model",
        "text encoder",
    }
    assert not any(has_lock for what, has_lock, _ in walk.watch.seen if what == "model")


def test_a_lock_that_looks_away_shows(walked, monkeypatch):
    monkeypatch.setattr(lock.Lock, "check", lambda *_: None)
    for name in (
        "LoraLoaderModelOnly",
        "LoraLoaderBypassModelOnly",
        "CreateHookLora",
        "ModelMergeSubtract",
    ):
        assert walked.rows[name] == Outcome(STOPPED)
        assert walked.walk.outcome(Case(name)) == Outcome(
            LOST, "the model computes with other weights"
        ), name


def test_what_is_left_behind_shows(walked, monkeypatch):
    parts = walked.walk.parts
    found = Marks(parts.stage, parts.merged)
    assert found.left_behind() == []
    monkeypatch.setattr(comfy.sd.CLIP, "tokenize", lambda *_: None)
    monkeypatch.setattr(comfy.sd, "load_lora_for_models", lambda *_: None)
    monkeypatch.setitem(parts.stage.base.model_options, "left", 1)
    monkeypatch.setattr(parts.merged.model.model, "left", 1, raising=False)
    assert found.left_behind() == [
        "base.model.left",
        "base.model_options",
        "comfy.sd.CLIP.tokenize",
        "comfy.sd.load_lora_for_models",
        "merged.model.left",
    ]


def test_no_node_is_unknown(walked):
    known = {
        line.split(" | ")[0].removeprefix("| ")
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
    }
    unknown = sorted(walked.rows.keys() - known)
    if not os.environ.get("MSL_WRITE_TABLE"):
        assert not unknown, (
            f"docs/walk.md does not know {len(unknown)} nodes of this ComfyUI:"
            f" {', '.join(unknown)}. {ANEW}"
        )


def test_the_table_is_what_was_found(walked):
    """MSL_WRITE_TABLE=1 writes it anew."""
    if os.environ.get("MSL_WRITE_TABLE"):
        DOCUMENT.write_text(document(walked), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == document(walked), ANEW


def test_what_loses_the_lock_is_declared(walked):
    assert named(walked.rows, LOST) == DECLARED.keys() and set(DECLARED.values()) <= BEYOND.keys()


def test_what_was_not_run_is_listed(walked):
    assert named(walked.rows, NOT_RUN) == TOO_LARGE.keys() | NO_FILE


def test_what_changes_no_weight_raises_no_alarm(walked):
    assert {name: walked.rows[name].kind for name in HARMLESS} == dict.fromkeys(HARMLESS, UNCHANGED)
    # the sampling raises, in Flux's own attention patch, not the lock
    assert walked.rows["FluxKVCache"].kind == FOREIGN


def test_no_node_leaves_anything_behind(walked):
    changed = {
        name: [each for each in left if each.split(".")[-1] not in REMEMBERED]
        for name, left in walked.left.items()
    }
    assert {name: left for name, left in changed.items() if left} == {}
