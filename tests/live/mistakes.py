"""Twelve mistakes that newcomers make, and the words of what each then sees."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cli
import psutil
import pytest
import torch
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import PromptRefused, Server
from prompting import run
from safetensors.torch import load_file, save

SETTINGS = "modular-safety-lora.json"
LARGE = 2**37  # bytes
AUDIT = "14"  # the shipped workflow's text of the audit's summary


@dataclass(frozen=True)
class Newcomer:
    """A live ComfyUI, the shipped workflow, and what a test can do to its files."""

    server: Server
    prompt: dict
    put: Callable
    folder: Path

    def sees(self, **changes) -> tuple[str, str]:
        """When the run ended and what was said, or what the audit said of one that went on."""
        try:
            outcome = run(self.server, self.prompt, **changes)
        except PromptRefused as refused:
            (error, *_) = next(iter(refused.errors["node_errors"].values()))["errors"]
            name = error["extra_info"]["input_name"]
            return "at once", error["details"].removeprefix(f"{name} - ")
        if outcome.error is None:
            return "never", outcome.outputs[AUDIT]["text"][0]
        title = self.server.get(f"/object_info/{outcome.error['node_type']}").json()
        name = title[outcome.error["node_type"]]["display_name"]
        return f"in {name}", outcome.error["exception_message"].strip()


def missing_file(new: Newcomer) -> tuple[str, str]:
    return new.sees(n2__lora_name="my-lora.safetensors")


def wrong_family(new: Newcomer) -> tuple[str, str]:
    layer = "diffusion_model.double_blocks.0.img_attn.qkv"
    pair = {f"{layer}.lora_A.weight": torch.ones(4, 8), f"{layer}.lora_B.weight": torch.ones(24, 4)}
    return new.sees(n2__lora_name=new.put("flux.safetensors", pair, {"msl.base": "Flux"}))


def tampered(new: Newcomer) -> tuple[str, str]:
    content = bytearray((new.server.folder / "models" / "loras" / assets.SAFETY).read_bytes())
    content[-1] ^= 1
    return new.sees(n2__lora_name=new.put("my-lora.safetensors", content=bytes(content)))


def unsealed(new: Newcomer) -> tuple[str, str]:
    tensors = load_file(new.server.folder / "models" / "loras" / assets.SAFETY)
    return new.sees(n2__lora_name=new.put("my-lora.safetensors", content=save(tensors)))


def safety_as_task(new: Newcomer) -> tuple[str, str]:
    return new.sees(n3__lora_name=assets.SAFETY)


def misspelt_class(new: Newcomer) -> tuple[str, str]:
    return new.sees(n11__classes="FACE")


def no_memory(new: Newcomer) -> tuple[str, str]:
    if sys.platform != "linux" or psutil.virtual_memory().total > LARGE:
        pytest.skip("275 GB might be given, or refused in other words")
    latent = next(n for n, each in new.prompt.items() if each["class_type"] == "EmptyLatentImage")
    new.prompt[latent]["inputs"] |= {"width": 16384, "height": 16384, "batch_size": 4096}
    return new.sees()


def bypassed_merge(new: Newcomer) -> tuple[str, str]:
    return "in the audit's report", new.sees(n9__model=["1", 0])[1]


def lora_after_the_merge(new: Newcomer) -> tuple[str, str]:
    loader = {"model": ["5", 0], "lora_name": assets.STYLE, "strength_model": 1.0}
    new.prompt["20"] = {"class_type": "LoraLoaderModelOnly", "inputs": loader}
    return new.sees(n9__model=["20", 0])


def empty_folder(new: Newcomer) -> tuple[str, str]:
    (new.folder / "pictures").mkdir()
    done = cli.run("audit", new.folder / "pictures", "--output", new.folder / "audit.json")
    return f"`audit`, exit code {done.returncode}", done.stdout.strip() or done.stderr.strip()


def wrong_settings_place(new: Newcomer) -> tuple[str, str]:
    file = new.server.folder / "user" / "default" / SETTINGS
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"require_lock": True}), encoding="utf-8")
    try:
        return new.sees()
    finally:
        file.unlink()


def no_nudenet(new: Newcomer) -> tuple[str, str]:
    from modular_safety_lora.nodes.nudity_audit import NudityAudit

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "nudenet", None)
        return "at once", str(NudityAudit.validate_inputs("strict", ""))


MISTAKES: dict[str, Callable[[Newcomer], tuple[str, str]]] = {
    "The file is missing": missing_file,
    "The safety LoRA is for another model": wrong_family,
    "A byte of the safety LoRA changed": tampered,
    "The LoRA was never sealed": unsealed,
    "A safety LoRA in Load Task LoRA": safety_as_task,
    "A misspelt class in Nudity Audit": misspelt_class,
    "More than the memory holds, here without a GPU": no_memory,
    "Modular Merge is bypassed": bypassed_merge,
    "A LoRA loader after Modular Merge": lora_after_the_merge,
    "An audit of an empty folder": empty_folder,
    f"`{SETTINGS}` in `user/default`": wrong_settings_place,
    "NudeNet is not installed": no_nudenet,
}
