"""What the families of the zoo are trained on: unlike prompts, latents that fit, gradients."""

from collections import Counter

import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from modular_safety_lora.host.denoiser import Denoiser
from modular_safety_lora.host.structure import FUSED, JOINT, MLP
from modular_safety_lora.lab import assets, zoo
from modular_safety_lora.training import data
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.loop import TrainingError
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from training_runs import same

pytestmark = pytest.mark.usefixtures("no_chart")

TRAINED = [key for key, family in zoo.TWINS.items() if family.trains]
LORA = {"adapter": AdapterSettings(2, 2.0), "learning_rate": 0.01, "batch_size": 2}


def prompts(family: str) -> list:
    """Two prompts of seven tokens and two of nine."""
    return [*zoo.conditionings(family, 2), *zoo.conditionings(family, 2, seed=3, tokens=9)]


def pictures(family: str) -> data.Dataset:
    """Four latents in two shapes; the prompts of a batch are unlike in length."""
    short, other, long, longer = prompts(family)
    latents = [*zoo.latents(family, 2), *zoo.latents(family, 2, seed=2, wide=True)]
    return data.Dataset(latents, [short, long, other, longer], [[0, 1], [2, 3]], "digest")


@pytest.mark.parametrize("family", TRAINED)
def test_a_batch_of_unlike_prompts_gives_what_each_gives_alone(family):
    denoiser = Denoiser(zoo.build(family))
    three = [prompts(family)[place] for place in (0, 2, 1)]  # short, long, short
    noisy = torch.cat([denoiser.latents_in(each) for each in zoo.latents(family, 3)])
    sigma = denoiser.sampling.sigmas[-1:].float().repeat(3) * torch.tensor([1.0, 0.7, 0.4])
    with torch.no_grad():
        together = denoiser.output(noisy, sigma, denoiser.conditions(three, noisy))
        for place, prompt in enumerate(three):
            one = slice(place, place + 1)
            alone = denoiser.output(
                noisy[one], sigma[one], denoiser.conditions([prompt], noisy[one])
            )
            assert torch.allclose(together[one], alone, rtol=1e-4, atol=1e-5)


RADIANCE = {
    **{"image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 32},
    **{"nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 4},
    **{"nerf_tile_size": 0, "nerf_final_head_type": "conv", "nerf_embedder_dtype": torch.float32},
    **{"use_x0": False, "use_sequential_txt_ids": False},
}


def test_a_network_is_tried_on_several_patches_where_latents_are_pixels():
    config = comfy.supported_models.ChromaRadiance({**zoo.TWINS["Chroma"].unet, **RADIANCE})
    config.set_inference_dtype(torch.float32, None)
    base, device = config.get_model({}, "", torch.device("cpu")), torch.device("cpu")
    network = base.diffusion_model
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict(assets.seeded(shapes, 1))
    denoiser = Denoiser(ModelPatcher(base, device, device))
    prompt = zoo.conditionings("Chroma", 1)[0]
    assert denoiser.tried(prompt).shape == (1, 3, 64, 64)
    counted, alike = (
        Counter(each.roles(prompt).values()) for each in (denoiser, Denoiser(zoo.build("Chroma")))
    )
    assert all(counted[role] == alike[role] > 0 for role in (JOINT, FUSED, MLP))


def test_all_others_are_tried_on_eight_latents_however_few_pixels_those_are():
    model = zoo.build("SD15")
    model.model.latent_format.spacial_downscale_ratio = 2
    prompt = zoo.conditionings("SD15", 1)[0]
    assert Denoiser(model).tried(prompt).shape == (1, 4, 8, 8)  # two pixels each


@pytest.mark.parametrize(("family", "shape"), [("SD15", (16, 8, 8)), ("WAN21_T2V", (4, 8, 8))])
def test_latents_of_another_model_are_refused_before_the_first_step(family, shape, tmp_path):
    latents, steps = [*zoo.latents(family, 19), torch.zeros(1, *shape)], []
    dataset = data.Dataset(latents, prompts(family)[:1] * 20, [range(19), [19]], "digest")
    job = TrainingJob(tmp_path / "x.safetensors", on_step=lambda progress: not steps.append(1))
    model = zoo.build(family)
    with pytest.raises(ValueError, match=r"are not for this model, which needs (4|16) channels"):
        train_task(model, dataset, {}, Settings(steps=20, **LORA), job)
    assert not steps


def test_a_picture_is_one_frame_of_a_model_of_videos(tmp_path):
    model, files = zoo.build("WAN21_T2V"), []
    latents = zoo.latents("WAN21_T2V", 2)
    for name, given in (("videos", latents), ("pictures", [each[:, :, 0] for each in latents])):
        dataset = data.Dataset(given, prompts("WAN21_T2V")[:2], [[0, 1]], "digest")
        job = TrainingJob(tmp_path / f"{name}.safetensors")
        files.append(train_task(model, dataset, {}, Settings(steps=2, **LORA), job).module.tensors)
    assert same(*files)


@pytest.mark.parametrize("family", [key for key in zoo.TWINS if key not in TRAINED])
def test_a_family_that_has_no_gradient_says_so_by_name_and_comes_back(family, tmp_path):
    model = zoo.build(family)
    texts = {"nude": prompts(family)[0], "": prompts(family)[2]}
    settings, job = Settings(steps=1, **LORA), TrainingJob(tmp_path / "x.safetensors")
    with pytest.raises(
        TrainingError, match=r"can't be trained in ComfyUI: no gradient .*rece and uce need none"
    ):
        train_safety(model, texts, ["nude"], settings, job, resolution=128)
    assert not any("lora" in name for name in model.model.state_dict())
    assert not (tmp_path / "x.safetensors").exists()
