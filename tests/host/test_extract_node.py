"""The node Extract Safety LoRA and the verb `extract`: what they offer, leave and say."""

import json
from functools import partial

import folder_paths
import pytest
import safe_models
import torch
from modular_safety_lora import commands
from modular_safety_lora.extraction import extract as room
from modular_safety_lora.lab import assets
from modular_safety_lora.modules.files import load_safety
from modular_safety_lora.nodes import extract as extract_node
from modular_safety_lora.nodes.extract import ExtractSafetyLora, source_path, sources
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")


@pytest.fixture
def folders(tmp_path):
    """ComfyUI's folders of models, a test's own."""
    before = dict(folder_paths.folder_names_and_paths)
    for kind in ("loras", "checkpoints", "diffusion_models", "text_encoders", "diffusers"):
        (tmp_path / kind).mkdir()
        folder_paths.folder_names_and_paths[kind] = ([str(tmp_path / kind)], before[kind][1])
    folder_paths.filename_list_cache.clear()
    yield tmp_path
    folder_paths.folder_names_and_paths.update(before)
    folder_paths.filename_list_cache.clear()


@pytest.fixture
def safe(folders):
    """ESD's trained tensors among the diffusion models, and a pipeline's folder."""
    model = safe_models.base()
    weights = safe_models.tuned(safe_models.weights_of(model), safe_models.cross)
    changed = {key for key in weights if safe_models.cross(key)}
    safe_models.as_trained(folders / "diffusion_models", model, weights, changed)
    safe_models.as_folder(folders / "diffusers", model, weights, changed)
    return model


@pytest.fixture
def quick(monkeypatch):
    """The network is looked at in the smallest picture."""
    whole = extract_node.extract
    monkeypatch.setattr(extract_node, "extract", partial(whole, moments=safe_models.SMALL))


def run(model, clip, source: str, **more):
    given = {"concept": "nudity", "prompts": "nude person", "save_as": "safe-part", **more}
    return ExtractSafetyLora.execute(model, clip, source, **given)


def test_the_node_offers_files_and_folders_and_seals_what_they_change(
    folders, safe, checkpoint, quick
):
    assert set(sources()) == {
        "diffusion_models/esd-esdx.safetensors",
        "diffusers/safe",
        "diffusers/safe/unet",
    }
    seals = []
    for number, source in enumerate(sources()):
        module, seal, words, report = run(safe, checkpoint[1], source, save_as=f"n{number}").result
        assert module[0].sha256 == seal and json.loads(report)["sha256"] == seal
        assert f"n{number}.safetensors: sealed, from " in words and "| cross-attention |" in words
        seals.append(load_safety(folders / "loras" / f"n{number}.safetensors", "x").tensors)
    assert all(torch.equal(seals[0][key], other[key]) for other in seals[1:] for key in seals[0])


def test_a_source_that_is_not_there_or_leads_out_is_refused(folders, safe):
    (folders / "secret.safetensors").touch()
    for wrong in ("checkpoints/../secret.safetensors", "loras/x.safetensors", "", "nothing"):
        with pytest.raises(ValueError, match="no such file in the models folders"):
            source_path(wrong)
    assert "no such file" in ExtractSafetyLora.fingerprint_inputs("nothing")


def test_it_is_looked_at_again_when_the_source_is_another(folders, safe):
    source = "diffusion_models/esd-esdx.safetensors"
    before = ExtractSafetyLora.fingerprint_inputs(source)
    save_file({"a": torch.ones(1)}, folders / source)
    assert ExtractSafetyLora.fingerprint_inputs(source) != before


def test_the_verb_writes_it_and_says_what_it_keeps(models, tmp_path, capsys, monkeypatch):
    whole = room.extract
    monkeypatch.setattr(room, "extract", partial(whole, moments=safe_models.SMALL))
    source = models / "diffusion_models" / assets.SAFE
    output = tmp_path / "safety.safetensors"
    base = models / "checkpoints" / assets.CHECKPOINT
    asked = ["extract", str(source), "--checkpoint", str(base), "--concept", "nudity"]
    asked += ["--output", str(output), "--form", "rank", "--rank", "4", "--file-precision", "fp32"]
    assert commands.main(asked) == 0
    said = capsys.readouterr().out
    assert "safety.safetensors: sealed, from safe-demo.safetensors. It keeps" in said
    module = load_safety(output, "x")
    assert f"Its sha256 is {module.sha256}." in said
    report = json.loads(module.metadata["msl.extraction"])
    assert report["kept"] > 0.99 and module.metadata["msl.base_sha256"]
    assert commands.main(asked) == 1
    assert "exists already; choose another name" in capsys.readouterr().err
