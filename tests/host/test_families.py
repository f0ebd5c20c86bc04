"""A family's row: what ComfyUI's own templates say, and what the shipped workflows are."""

import json
from dataclasses import astuple
from importlib.metadata import files

import comfy.sample
import comfy.supported_models
import pytest
from modular_safety_lora.host.families import FAMILIES, family_of, of_class, suiting
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.plans import REPORT, SEARCHED, TRY, UNDONE
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.lab.variants import VARIANTS
from modular_safety_lora.modules.architectures import BLOCKS, TEXT_WIDTHS
from modular_safety_lora.training import data
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.engine.previews import Previews
from modular_safety_lora.training.objectives import Erasure
from modular_safety_lora.training.safety import train_safety
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task

MODELS = {  # what a shipped workflow's loader names: its family
    loader.widgets[name]: variant.family
    for variant in VARIANTS
    for loader in variant.loaders
    for name in {"ckpt_name", "unet_name"} & loader.widgets.keys()
} | {"v1-5-pruned-emaonly-fp16.safetensors": "SD15"}
ASKED = ("steps", "cfg", "sampler_name", "scheduler")
OWN = ("preview_steps", "preview_guidance", "guidance")  # 0: what suits the model


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


def read_from(file: str, family: str):
    """A small MODEL, with the host's own note that it was loaded from a file of that name."""
    model = zoo.build(family)
    model.cached_patcher_init = (zoo.build, (f"/turbo/{file}",))  # a folder's name says nothing
    return model


@pytest.mark.parametrize("row", [each for each in FAMILIES if each.template], ids=lambda f: f.title)
def test_a_row_is_a_templates_settings(row):
    steps, guidance, *rest = astuple(row.sampling)
    of_template = sampler_of(row.template)
    assert (steps, *rest) == (of_template[0], *of_template[2:])
    assert guidance == pytest.approx(of_template[1], abs=0.02)


EXAMPLE = (TRY, REPORT, UNDONE, SEARCHED)  # of the model that ships


@pytest.mark.parametrize(
    "file",
    [each for each in sorted(PACK.glob("workflows/api/*.json")) if each.stem not in EXAMPLE],
    ids=lambda each: each.stem,
)
def test_a_shipped_workflow_samples_as_its_row_says_and_its_previews_do(file):
    given = [each["inputs"] for each in json.loads(file.read_text(encoding="utf-8")).values()]
    [name] = {each[key] for each in given for key in ("ckpt_name", "unet_name") if key in each}
    model = read_from(name, MODELS[name])
    family, (width, height) = family_of(model), family_of(model).size
    found = {tuple(each[key] for key in ASKED) for each in given if "sampler_name" in each}
    assert found == {astuple(family.sampling)} == {astuple(suiting(model))}
    latents = {(each["width"], each["height"]) for each in given if "width" in each}
    assert latents == {(width, height)}
    sides = {each[key] for each in given for key in ("preview_size", "resolution") if key in each}
    assert sides <= {min(width, height)}
    assert not any(each.get(key) for each in given for key in OWN), "as suits the model"


def test_models_of_one_class_are_told_by_the_files_name():
    """Z-Image and its Turbo are one class of ComfyUI's, with weights of the same names."""
    turbo = of_class("ZImage", "z_image_turbo_bf16.safetensors")
    base = of_class("ZImage")
    assert (turbo.title, base.title) == ("Z-Image Turbo", "Z-Image")
    assert turbo.sampling != base.sampling and turbo.diffusers == base.diffusers
    for name in ("My-Z-Image-TURBO.safetensors", "zImageTurbo_v1.safetensors"):
        assert family_of(read_from(name, "ZImage").clone()) == turbo
    assert family_of(read_from("z_image_bf16.safetensors", "ZImage")) == base
    assert family_of(zoo.build("ZImage")) == base, "nobody said of which file"
    assert of_class("Flux", "my-turbo.safetensors").title == "Flux dev"
    klein = [f"flux-2-klein-{name}.safetensors" for name in ("base-4b", "4b")]
    titles = [of_class("Flux2", name).title for name in (*klein, "flux2_dev.safetensors")]
    assert titles == ["Flux 2 klein base", "Flux 2 klein", "Flux 2"]


def test_each_row_is_found_and_its_class_is_the_hosts():
    for row in FAMILIES:
        assert of_class(row.config, f"x_{row.word}.safetensors") == row
        assert hasattr(comfy.supported_models, row.config)
    assert {*TEXT_WIDTHS.values(), *BLOCKS.values()} <= {row.config for row in FAMILIES}
    assert {row.config for row in zoo.TWINS.values()} <= {row.config for row in FAMILIES}


def test_a_family_without_a_row_is_sampled_as_one_nobody_knows():
    found = of_class("Brand_New", "turbo.safetensors")
    assert (found.title, *astuple(found.sampling)) == ("Brand_New", 20, 4.0, "euler", "simple")
    assert found.side == 1024
    assert found.alpha and found.diffusers is None  # a trained file keeps ComfyUI's names


def test_what_is_given_comes_before_what_suits():
    model = zoo.build("Flux")
    assert suiting(model).guidance == 1.0 and suiting(model).steps == 20
    assert astuple(suiting(model, 5, 3.0)) == (5, 3.0, "euler", "simple")


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
