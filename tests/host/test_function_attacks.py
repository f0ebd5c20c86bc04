"""Tasks whose weights take nothing from a safety module, and that undo it in what is computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.sample
import comfy.sd
import concepts
import fitting
import formats
import gauge_attack
import merging
import pytest
import torch
import zoo_arms
from modular_safety_lora.emoji import checkpoint as world
from modular_safety_lora.emoji.files import FOLDER, SAFETY
from modular_safety_lora.function.inputs import moments_of, short_form
from modular_safety_lora.function.measure import Arm
from modular_safety_lora.function.texts import encoded
from modular_safety_lora.lab import zoo
from modular_safety_lora.merge.merge import Merged, Task, merge
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.modules.files import LoraFile, load_safety

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")
SIZE = 0.03  # of the safety change, as a share of the weights
WEAPONS = FOLDER / SAFETY


@dataclass(frozen=True)
class Target:
    """A base and text encoder, a safety module, and its heads and feed-forward layers."""

    model: object
    clip: object
    module: LoraFile
    heads: Sequence[Sequence[gauge_attack.Part]]
    parts: tuple[str, ...]

    @property
    def safe(self):
        return zoo_arms.with_lora(self.model, self.module.tensors, 1.0)

    @property
    def feed_forward(self) -> list[str]:
        network = self.model.model.diffusion_model.named_modules()
        return [
            name
            for name, each in network
            if isinstance(each, torch.nn.Linear) and any(part in name for part in self.parts)
        ]


def sd15(checkpoint, folder) -> Target:
    model, clip = checkpoint
    network = model.model.diffusion_model
    attention = [name for name, _ in network.named_modules() if name.endswith("attn2")]
    layers = [f"{name}.{end}" for name in attention for end in ("to_q", "to_k", "to_v", "to_out.0")]
    tensors = formats.Lora(merging.shapes(model, *layers), 1, size=SIZE).tensors()
    heads = [head for name in attention for head in gauge_attack.unet_heads(network, name)]
    return Target(model, clip, concepts.prompted(tensors, concepts.PROMPTS), heads, (".ff.",))


def flux(checkpoint, folder) -> Target:
    model = zoo.build("Flux", sizes={"context_in_dim": 768, "vec_in_dim": 768})
    tensors = zoo_arms.safety_lora(model, "Flux", SIZE)
    module = concepts.prompted(tensors, concepts.PROMPTS)
    heads = gauge_attack.flux_heads(model.model.diffusion_model)
    return Target(model, checkpoint[1], module, heads, ("_mlp.",))


def emoji(checkpoint, folder) -> Target:
    file = folder / "emoji.safetensors"
    world.write(file)
    model, clip = comfy.sd.load_checkpoint_guess_config(str(file))[:2]
    module = load_safety(WEAPONS, WEAPONS.name)
    heads = gauge_attack.joint_heads(model.model.diffusion_model)
    return Target(model, clip, module, heads, (".mlp.fc",))


TARGETS: dict[str, Callable] = {"SD1.5": sd15, "Flux": flux, "emoji": emoji}
# steps of the fit, and pictures that it is made on
FITS = {"Flux": (80, 2), "SD1.5": (90, 3), "emoji": (80, 3)}


@pytest.fixture(scope="module")
def targets(checkpoint, tmp_path_factory):
    """Each target, made once."""
    made = {}

    def of(name: str) -> Target:
        if name not in made:
            made[name] = TARGETS[name](checkpoint, tmp_path_factory.mktemp("target"))
        return made[name]

    yield of
    comfy.model_management.unload_all_models()


def sampled(target: Target, merged: Merged) -> torch.Tensor:
    """One step of the stock sampler, by the merged text encoder."""
    space = merged.model.model.latent_format
    latent = torch.zeros(1, space.latent_channels, 8, 8)
    texts = encoded(merged.clip, target.module.prompts[:1])
    positive, negative = (each.conditioning for each in texts.values())
    noise = comfy.sample.prepare_noise(latent, 1)
    arguments = (1, 2.0, "euler", "normal", positive, negative, latent)
    return comfy.sample.sample(merged.model, noise, *arguments, seed=1, disable_pbar=True)


def stopped_by_function_alone(target: Target, task: LoraFile, most: float) -> None:
    merged = merge(target.model, [target.module], [Task(task)], target.clip)
    report = merged.report
    assert report["retained_safety"] == pytest.approx(1.0, abs=1e-5)
    assert report["modules"][1]["relative_size"] < 2.0
    assert abs(report["retained_in_function"]) < most
    (loss,) = report["losses"]
    assert "in function" in loss
    with pytest.raises(SafetyError, match=r"in function is -?0\.\d+, under 0\.5"):
        sampled(target, merged)
    alone = merge(target.model, [target.module], [Task(task)]).report
    assert alone["losses"] == [], "without a text encoder nothing sees it"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name == "emoji")) for name in TARGETS]
)
def test_the_gauge_of_attention_leaves_nothing_and_is_stopped(targets, name):
    target = targets(name)
    task = gauge_attack.task(target.model, target.safe, target.heads)
    stopped_by_function_alone(target, task, 1e-3)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name != "Flux")) for name in FITS]
)
def test_a_fit_of_the_feed_forward_layers_to_the_base_is_stopped(targets, name):
    target, (steps, pictures) = targets(name), FITS[name]
    moments = moments_of(target.module.metadata, target.module.name)
    asks = short_form(moments, target.module.prompts, pictures)
    texts = encoded(target.clip, [text for ask in asks for text in ask.prompts])
    base, safe = Arm(target.model, texts), Arm(target.safe, texts)
    task = fitting.task(
        base, safe, target.feed_forward, asks, resolution=moments.resolution, steps=steps
    )
    stopped_by_function_alone(target, task, 0.5)


@pytest.mark.parametrize("name", TARGETS)
def test_a_seeded_style_of_the_same_size_is_not_stopped(targets, name):
    """On the same layers, in no direction."""
    target = targets(name)
    layers = sorted({part.key for head in target.heads for part in head})
    tensors = formats.Lora(merging.shapes(target.model, *layers), 7, size=0.1).tensors()
    merged = merge(target.model, [target.module], [Task(merging.task(tensors))], target.clip)
    assert merged.report["losses"] == []
    assert sampled(target, merged).isfinite().all()
