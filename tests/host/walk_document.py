"""docs/walk.md: made from a whole walk, and what it must say of each case."""

import os
from collections import Counter

import comfyui_version
from modular_safety_lora.lab.server import PACK
from walk import FOREIGN, GUIDANCE, LARGER, LOST, NOT_RUN, STOPPED, UNCHANGED, Outcome, Walk

DOCUMENT = PACK / "docs" / "walk.md"
WAY_OUT = "Run `python dev.py generate`, and look at what changed."
WRITES = bool(os.environ.get("MSL_WRITE_TABLE"))
HERE = f"Of the nodes of ComfyUI {comfyui_version.__version__} ("
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


def table(rows: dict[str, Outcome]) -> list[str]:
    """A line of the page for each case."""
    order = [LOST, STOPPED, GUIDANCE, UNCHANGED, FOREIGN, NOT_RUN]
    lines = []
    for name, outcome in sorted(rows.items(), key=lambda row: (order.index(row[1].kind), row[0])):
        declared = f"; declared: {DECLARED[name]}" if name in DECLARED else ""
        lines.append(f"| {name} | {outcome.kind} | {outcome.why}{declared} |")
    return lines


def document(walk: Walk, rows: dict[str, Outcome]) -> str:
    """The page of a whole walk."""
    count = Counter(outcome.kind for outcome in rows.values())
    return f"""# Every stock node, between Modular Merge and the sampler

Made by `tests/host/test_walk.py`, which fails when a row is no longer true or a node is missing:
with `-m long`, first for nodes that take or give more than samplers, texts, conditioning
and ControlNets (one of those that run the same code), then for all. {WAY_OUT}

{HERE}not those that call services), the {len(walk.nodes)} that \
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
gives with the safety LoRA
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
""" + "\n".join([*table(rows), ""])
