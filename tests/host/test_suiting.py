"""What suits a family is what ComfyUI's own templates sample it with."""

import json
from dataclasses import astuple
from importlib.metadata import files

import comfy.sample
import comfy.supported_models
import pytest
from modular_safety_lora.host.sampling import SUITS, suiting, suits
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.training import data
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.previews import Previews
from modular_safety_lora.training.objectives import Erasure
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task

TEMPLATES = {  # family: a template of it with a KSampler
    "FluxSchnell": "flux_schnell",
    "Flux": "flux_dev_full_text_to_image",
    "SD3": "sd3.5_simple_example",
    "QwenImage": "image_qwen_image_layered",
    "ZImage": "image_z_image",
    "Lumina2": "image_netayume_lumina_t2i",
    "HiDream": "hidream_i1_full",
    "WAN21_T2V": "text_to_video_wan",
    "Kandinsky5": "video_kandinsky5_t2v",
    "Kandinsky5Image": "image_kandinsky5_t2i",
    "Krea2": "image_krea2_turbo_t2i",
    "Anima": "image_anima_base_v1",
}


MODELS = {  # what a shipped workflow's loader names: its family
    "v1-5-pruned-emaonly-fp16.safetensors": "SD15",
    "sd_xl_base_1.0.safetensors": "SDXL",
    "flux1-dev.safetensors": "Flux",
    "z_image_bf16.safetensors": "ZImage",
    "qwen_image_fp8_e4m3fn.safetensors": "QwenImage",
    "wan2.1_t2v_1.3B_fp16.safetensors": "WAN21_T2V",
}
ASKED = ("steps", "cfg", "sampler_name", "scheduler")


def sampler_of(template: str) -> tuple:
    """(steps, guidance, sampler, scheduler) of a template's first KSampler."""
    [path] = [
        each.locate()
        for each in files("comfyui-workflow-templates-json")
        if each.name == f"{template}.json"
    ]
    told = json.loads(path.read_text(encoding="utf-8"))
    graphs = [told, *told.get("definitions", {}).get("subgraphs", [])]
    nodes = [node for graph in graphs for node in graph["nodes"]]
    values = next(node["widgets_values"] for node in nodes if node["type"] == "KSampler")
    return tuple(values[2:6])


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_row_is_a_templates_settings(family):
    steps, guidance, *rest = astuple(SUITS[family])
    of_template = sampler_of(TEMPLATES[family])
    assert (steps, *rest) == (of_template[0], *of_template[2:])
    assert guidance == pytest.approx(of_template[1], abs=0.02)


@pytest.mark.parametrize("file", sorted(PACK.glob("workflows/api/*.json")), ids=lambda f: f.stem)
def test_a_shipped_workflow_samples_as_its_previews_do(file):
    nodes = json.loads(file.read_text(encoding="utf-8")).values()
    given = [node["inputs"] for node in nodes]
    [name] = {each[key] for each in given for key in ("ckpt_name", "unet_name") if key in each}
    found = {tuple(each[key] for key in ASKED) for each in given if "sampler_name" in each}
    assert found == {astuple(suits(MODELS[name], name))}
    chosen = [each.get(key) for each in given for key in ("preview_steps", "preview_guidance")]
    assert not any(chosen), "previews are made as suits the model"


def test_a_distilled_model_is_told_by_its_files_name():
    """Z-Image and its Turbo are one class of ComfyUI's, with weights of the same names."""
    turbo = sampler_of("image_z_image_turbo")
    names = ("z_image_turbo_bf16.safetensors", "My-Z-Image-TURBO.safetensors")
    assert [astuple(suits("ZImage", name)) for name in names] == [turbo] * 2
    assert suits("Flux", names[0]) == SUITS["Flux"]
    model = zoo.build("ZImage")
    assert astuple(suiting(model)) == sampler_of("image_z_image")
    model.cached_patcher_init = (zoo.build, (f"/turbo/{names[0]}", {}))
    assert astuple(suiting(model.clone())) == turbo, "by the host's own note of its loader"
    model.cached_patcher_init = (zoo.build, ("/turbo/z_image_bf16.safetensors", {}))
    assert suiting(model).steps == 25, "a folder's name says nothing"


def test_every_row_is_a_family_of_the_host():
    assert all(hasattr(comfy.supported_models, name) for name in SUITS)


def test_what_is_given_comes_before_what_suits():
    model = zoo.build("Flux")
    assert suiting(model).guidance == 1.0 and suiting(model).steps == 20
    assert astuple(suiting(model, 5, 3.0)) == (5, 3.0, "euler", "simple")
    assert suiting(zoo.build("PixArtSigma")).guidance == 4.0  # a family without a row


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (4, 1.0, "euler", "simple")), ({"sampling_steps": 2, "guidance": 3.0}, (2, 3.0))],
)
def test_previews_are_sampled_so(given, expected, tmp_path, monkeypatch):
    family, seen, sample = "FluxSchnell", [], comfy.sample.sample

    def noted(model, noise, *arguments, **more):
        seen.append(arguments)
        return sample(model, noise, *arguments, **more)

    monkeypatch.setattr(comfy.sample, "sample", noted)
    one, two = zoo.conditionings(family, 2)
    texts = {"a cat": one, "": two}
    looks = Previews(["a cat"], texts, zoo.vae(family), tmp_path, resolution=32, **given)
    dataset = data.Dataset(zoo.latents(family, 1), [one], [[0]], "digest")
    job = TrainingJob(tmp_path / "x.safetensors", previews=looks)
    train_task(zoo.build(family), dataset, texts, Settings(steps=1), job)
    assert [arguments[: len(expected)] for arguments in seen] == [expected] * 2


@pytest.mark.parametrize(
    ("family", "given", "expected"),
    [
        ("SD15", 0.0, 3.0),
        ("Flux", 0.0, 1.0),
        ("QwenImage", 0.0, 2.5),
        ("ZImage", 0.0, 3.0),
        ("Flux", 4.0, 4.0),
    ],
)
def test_what_a_safety_lora_trains_on_is_made_so(family, given, expected, tmp_path):
    one, two = zoo.conditionings(family, 2)
    job = TrainingJob(tmp_path / "x.safetensors")
    settings, erasure = (
        Settings(steps=1, learning_rate=0.01),
        Erasure(guidance=given, sampling_steps=2),
    )
    how = {"erasure": erasure, "resolution": 32}
    module = train_safety(
        zoo.build(family), {"nude": one, "": two}, ["nude"], settings, job, **how
    ).module
    assert json.loads(module.metadata["msl.training"])["erasure"]["guidance"] == expected
