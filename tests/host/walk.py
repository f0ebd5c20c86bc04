"""A walk over every stock node that has to do with a model, a text, a guider or a sampler.

These are the nodes that take or return one of them or a part of one. Each is put between Modular
Merge and the sampler and called as the host's executor calls it; what it returns is carried on to a
sampling of two steps. The outcome is measured: on the layers of the networks that compute, and on
the picture.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import comfy.hooks
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.modules.errors import SafetyError
from safetensors import safe_open
from walk_inputs import Filling, NothingToFill, called, is_watched, sockets, stock_nodes
from walk_measure import Watch
from walk_parts import LARGE, SIDE, UNET_ONLY, Parts

import nodes

UNCHANGED, STOPPED, GUIDANCE = "unchanged", "stopped", "guidance or sampling only"
LOST, FOREIGN, NOT_RUN = "lock lost", "not for this model", "could not be run"
TOO_LARGE = {
    "LoraSave": "it decomposes every weight of the model, which takes minutes, and writes a LoRA",
    "TripleCLIPLoader": "it makes a T5 of ten gigabytes, whatever the files hold",
    "QuadrupleCLIPLoader": "it makes a T5 and a Llama, whatever the files hold",
    "LTXAVTextEncoderLoader": "it makes a Gemma, whatever the files hold",
    "PhotoMakerEncode": "its network has sizes of SDXL, fixed in code",
    "SUPIRApply": "its network has sizes of SDXL, fixed in code",
}
# what does too little to four latents on a side to be seen, or takes no picture as small
LARGER = {"RescaleCFG", "SelfAttentionGuidance", "TripoSplatConditioning"}
REASONS = {  # what a node or the sampling after it says, and what that means
    r"KeyError: '(g|t5xxl|mt5xl|qwen25_7b|llama)'": (
        "it encodes with text encoders that this model does not have"
    ),
    r"no attribute 'generate'": "this text encoder writes no text",
    r"'ModelSampling' object has no attribute": "it asks for flow sampling",
    r"shapes cannot be multiplied .*and 768x320": "its texts have another size than this model's",
    r"shapes cannot be multiplied|expected 5, got 4|5-D|expanded size|size of tensor"
    r"|Sizes of tensors": "it asks for the latents of another family",
    r"tuple index out of range": "it asks for a VAE of audio",
    r"'(tuple|NoneType)' object has no attribute 'device'|forward_video|heatmap_head": (
        "it detects with its own network"
    ),
    r"q_token_length|only works with Wan": "it asks for another network",
    r"expected 3, got 0|'NoneType' object is not subscriptable": (
        "its attention patch is for another network"
    ),
    r"no attribute 'MultiTalkModelPatch'|not an LTX duration head": (
        "it asks for a model patch of another network"
    ),
    r"JSONDecodeError": "it asks for points of its own network, as JSON",
}


@dataclass(frozen=True)
class Case:
    """A node as it is walked over: with its defaults, or with some inputs set.

    `note` says in words what is set.
    """

    node: str
    note: str = ""
    inputs: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.node}, {self.note}" if self.note else self.node


@dataclass(frozen=True)
class Outcome:
    kind: str
    why: str = ""


class Walk:
    """All that the cases share: nodes, what fills their sockets, the safe layers and picture."""

    def __init__(self, parts: Parts, watch: Watch, whole: bool):
        self.parts, self.watch, self.whole = parts, watch, whole
        self.nodes = {name: node for name, node in stock_nodes().items() if is_watched(node, whole)}
        stock = nodes.LoraLoader().load_lora(
            parts.stage.base, parts.stage.base_clip, parts.stage.file, 1.0, 1.0
        )
        # by the host's own loader: the first that runs is what `watch` holds safe
        self.expected = parts.run(*stock)
        self.safe = {side: self.on(side, lambda: self.sampled([])) for side in (SIDE, LARGE)}

    def cases(self) -> list[Case]:
        """Every node with its defaults, and of those that run the same code one, or all.

        One that takes several models or encoders comes also with the base as each.
        """
        base, base_clip = self.parts.stage.base, self.parts.stage.base_clip
        found, done = [], set()
        for name, node in self.nodes.items():
            code = getattr(node, node.FUNCTION)
            found += [Case(name)] if self.whole or code not in done else []
            for kind, value in (("MODEL", base), ("CLIP", base_clip)) if code not in done else ():
                places = [
                    place for place, _, taken, _ in sockets(node.INPUT_TYPES()) if taken == kind
                ]
                found += [
                    Case(name, f"the base as {place}", {place: value})
                    for place in places
                    if len(places) > 1
                ]
            # the same code under another name, with other inputs: ModelMergeFlux1 and its like
            done.add(code)
        zero = {"strength_model": 0.0, "strength_clip": 0.0}
        return [
            *found,
            Case("LoraLoader", "strengths 0", zero),
            Case(
                "LoraLoader",
                "strength_model 0, of a LoRA without text layers",
                {"strength_model": 0.0, "lora_name": UNET_ONLY},
            ),
            Case("CreateHookLora", "strengths 0", zero | {"prev_hooks": None}),
            Case("ModelMergeBlocks", "ratios 1, and the base as model2", {"model2": base}),
        ]

    def outcome(self, case: Case) -> Outcome:
        """Call a node, carry on what it returns, and say what was measured."""
        if case.node in TOO_LARGE:
            return Outcome(NOT_RUN, TOO_LARGE[case.node])
        saved = self.saved()
        try:
            side = LARGE if case.node in LARGER else SIDE
            picture = self.on(side, lambda: self.run(case))
        except SafetyError:
            return Outcome(STOPPED)
        except NothingToFill as reason:
            return Outcome(NOT_RUN, str(reason))
        except Exception as error:
            # whatever a node raises for a model of another family: named, or listed as not run
            text = f"{type(error).__name__}: {error}"
            words = next(
                (words for pattern, words in REASONS.items() if re.search(pattern, text)), None
            )
            return Outcome(FOREIGN, words) if words else Outcome(NOT_RUN, text)
        if self.saved() - saved:
            return Outcome(LOST, "the file has the weights, and no lock")
        if self.watch.lost():
            return Outcome(LOST, self.watch.lost())
        is_safe = torch.allclose(picture, self.safe[side], rtol=1e-3, atol=1e-4)
        return Outcome(UNCHANGED if is_safe else GUIDANCE)

    def on(self, side: int, made: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What is made while everything has this many latents on a side."""
        self.parts.side = side
        try:
            return made()
        finally:
            self.parts.side = SIDE

    def run(self, case: Case) -> torch.Tensor:
        """The picture after a node; one that raises is tried again with its optional inputs."""
        node = self.nodes[case.node]
        self.watch.clear()
        try:
            outputs = called(node, Filling(self.parts, node)() | case.inputs)
        except (SafetyError, NothingToFill):
            raise
        except Exception:  # as above: what it is about is said after the second try
            outputs = called(node, Filling(self.parts, node, optional=True)() | case.inputs)
        return self.sampled(outputs)

    def saved(self) -> set[Path]:
        """Files with the weights of a network in the output folder: no LoRAs."""
        found = set()
        for path in Path(folder_paths.get_output_directory()).rglob("*.safetensors"):
            with safe_open(path, "pt") as file:
                found |= set() if any("lora" in key for key in list(file.keys())) else {path}
        return found

    def carried(self, name: str, **given) -> list[tuple[str, object]]:
        """What a node returns for something that another one made."""
        return called(self.nodes[name], Filling(self.parts, self.nodes[name])() | given)

    def sampled(self, outputs: list[tuple[str, object]]) -> torch.Tensor:
        """The latent of two steps.

        What a node returned stands in the place of what was there before it.
        """
        parts, given = self.parts, {}
        for kind, each in outputs:
            each = each[0] if isinstance(each, list) and isinstance(each[0], ModelPatcher) else each
            kind = (
                "MODEL"
                if kind not in ("MODEL", "MODEL_PATCH") and isinstance(each, ModelPatcher)
                else kind
            )
            given.setdefault(kind, []).append(each)
        if "LORA_MODEL" in given:
            return self.sampled(self.carried("LoraModelLoader", lora=given["LORA_MODEL"][0]))
        if "MODEL_PATCH" in given:
            return self.sampled(
                self.carried("AnimaLLLiteApply", model_patch=given["MODEL_PATCH"][0])
            )
        model = given.get("MODEL", [parts.merged.model.clone()])[0]
        positive = parts.text(given["CLIP"][0]) if "CLIP" in given else parts.positive
        texts = (positive, parts.negative)
        made = given.get("CONDITIONING", [])[:2]
        positive, negative = [*made, *texts[len(made) :]]
        if "HOOKS" in given:
            positive = comfy.hooks.set_hooks_for_conditioning(positive, given["HOOKS"][0])
        if "CONTROL_NET" in given:
            positive = parts.controlled(positive, given["CONTROL_NET"][0])
        empty = parts.value("LATENT")
        latent = given.get("LATENT", [empty])[0]["samples"]
        if latent.shape[1:] != empty["samples"].shape[1:]:  # of another family, or of another size
            latent = empty["samples"]
        guider = (
            given["GUIDER"][0] if "GUIDER" in given else parts.guider(model, positive, negative)
        )
        sampler = given.get("SAMPLER", [parts.value("SAMPLER")])[0]
        sigmas = given["SIGMAS"][0] if "SIGMAS" in given else parts.sigmas(model)
        noise = parts.value("NOISE").generate_noise({"samples": latent})
        return guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=1)
