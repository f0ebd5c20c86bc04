"""Every stock node between Modular Merge and the sampler: what the lock sees of it.

docs/walk.md must say the same.
"""

import gc
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.sd
import folder_paths
import pytest
import torch
from attacks import BEYOND
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.merge import lock
from walk import FOREIGN, LOST, NOT_RUN, STOPPED, TOO_LARGE, UNCHANGED, Case, Outcome, Walk
from walk_document import DECLARED, DOCUMENT, HERE, WAY_OUT, WRITES, document, table
from walk_inputs import is_watched, stock_nodes
from walk_marks import Marks
from walk_measure import Watch
from walk_parts import SIDE, Parts, seeded_files

import nodes

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
    whole: bool  # or without nodes that only pass on what guides a sampling, and the like


WHOLE = [pytest.param(True, id="whole")]
PART = [] if WRITES else [pytest.param(False, id="weights")]
pytestmark = [] if WRITES else pytest.mark.long


@pytest.fixture(scope="module", params=PART + WHOLE)
def walked(request, stage, models, tmp_path_factory):
    """The walk, once; the host's list of nodes is as before when it ends.

    A run of the whole suite leaves out nodes that only pass on what guides a sampling or encode a
    text, and others' code under other names.
    """
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
        walk = Walk(Parts(stage, vae), watch, request.param)
        gc.freeze()  # the host collects garbage at every load, and all nodes are in memory by now
        rows, left, marks = {}, {}, Marks(stage, walk.parts.merged)
        for case in walk.cases():
            rows[case.name] = walk.outcome(case)
            left[case.name] = marks.left_behind()
        yield Walked(walk, rows, left, request.param)
    torch.compiler.set_stance("default")
    comfy.model_management.unload_all_models()
    for mapping, then in zip(
        (nodes.NODE_CLASS_MAPPINGS, nodes.NODE_DISPLAY_NAME_MAPPINGS), known, strict=True
    ):
        mapping.clear()
        mapping.update(then)


def named(rows: dict[str, Outcome], kind: str) -> set[str]:
    return {name for name, outcome in rows.items() if outcome.kind == kind}


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
    monkeypatch.setattr(lock, "left_behind", lambda *_: [])
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


def told() -> tuple[set[str], set[str], bool]:
    """Of docs/walk.md: its lines, the cases it knows, and if it is of this ComfyUI."""
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = set(text.splitlines())
    return lines, {line.split(" | ")[0].removeprefix("| ") for line in lines}, HERE in text


def of_the_page(walked) -> dict[str, Outcome]:
    """What was found of the cases that docs/walk.md must have: here all, elsewhere those it has."""
    _, known, is_here = told()
    return {name: each for name, each in walked.rows.items() if is_here or name in known}


def test_no_node_is_unknown(walked):
    """Or, on another ComfyUI than the page's, each that it does not know was walked over."""
    there = {name for name, node in stock_nodes().items() if is_watched(node)}
    _, known, is_here = told()
    pinned = Path(folder_paths.base_path) == PACK / ".host" / "ComfyUI"
    assert is_here or WRITES or not pinned, f"docs/walk.md is of another ComfyUI. {WAY_OUT}"
    unknown = sorted((there | walked.rows.keys()) - known)
    if not WRITES:
        assert not is_here or not unknown, (
            f"docs/walk.md does not know {len(unknown)} nodes of this ComfyUI:"
            f" {', '.join(unknown)}. {WAY_OUT}"
        )
    assert not walked.whole or set(unknown) <= walked.rows.keys()


def test_the_table_is_what_was_found(walked):
    """MSL_WRITE_TABLE=1 writes it. On another ComfyUI the nodes that it knows are the same."""
    if WRITES:
        DOCUMENT.write_text(document(walked.walk, walked.rows), encoding="utf-8")
    lines, _, is_here = told()
    if walked.whole and is_here:
        assert DOCUMENT.read_text(encoding="utf-8") == document(walked.walk, walked.rows), WAY_OUT
    rows = of_the_page(walked)
    assert len(rows) > 150 and set(table(rows)) <= lines, WAY_OUT


def test_what_loses_the_lock_is_declared(walked):
    assert named(walked.rows, LOST) == DECLARED.keys() and set(DECLARED.values()) <= BEYOND.keys()


def test_what_was_not_run_is_listed(walked):
    expected = (TOO_LARGE.keys() | NO_FILE) & walked.walk.nodes.keys()
    assert named(of_the_page(walked), NOT_RUN) == expected
    assert not walked.whole or expected == TOO_LARGE.keys() | NO_FILE


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
