"""Every published layout gives the same safety LoRA; what does not fit is refused, and says why."""

import os
import pickle

import comfy.sd
import pytest
import safe_models
import torch
import transformers
from merging import effective, relative_error
from modular_safety_lora.extraction.extract import extract
from modular_safety_lora.extraction.loaded import Loaded
from modular_safety_lora.extraction.settings import Extraction
from modular_safety_lora.host.families import of_class
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.modules.errors import ModuleFileError
from modular_safety_lora.modules.sealing import Sealing
from safe_models import SMALL
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")
FULL, NUDITY = Extraction(form="full", precision="fp32"), Sealing("nudity")


@pytest.fixture
def run(checkpoint, tmp_path):
    def extracted(source, model=None):
        base = Loaded(model or safe_models.base(), checkpoint[1])
        output = tmp_path / "out.safetensors"
        output.unlink(missing_ok=True)
        return extract(base, source, output, FULL, NUDITY, moments=SMALL)

    return extracted


@pytest.fixture
def safe():
    weights = safe_models.weights_of(safe_models.base())
    return safe_models.tuned(weights, safe_models.cross)


@pytest.mark.parametrize("layout", safe_models.LAYOUTS)
def test_a_layout_gives_what_the_safe_model_is(run, tmp_path, checkpoint, safe, layout):
    model, changed = safe_models.base(), {key for key in safe if safe_models.cross(key)}
    made = run(safe_models.LAYOUTS[layout](tmp_path, model, safe, changed), model)
    assert made.report["weights"]["changed"] == len(changed)
    merged = merge(model, [made.module], clip=checkpoint[1])
    for key in changed:
        assert relative_error(effective(merged.model, key), safe[key]) < 1e-6


@pytest.mark.parametrize("layout", [safe_models.as_spm, safe_models.as_mace])
def test_a_lora_is_sealed_as_it_is(run, tmp_path, checkpoint, layout):
    model = safe_models.base()
    pairs = safe_models.low_rank(model)
    made = run(layout(tmp_path, pairs), model)
    assert made.report["form"] == "LoRA, as it was"
    assert not any("attn1" in key for key in made.module.tensors)
    merged = merge(model, [made.module], clip=checkpoint[1])
    weights = safe_models.weights_of(model)
    names = {name: key for key, name in safe_models.unet_names(model).items()}
    for layer, (up, down) in pairs.items():
        key = names[f"{layer}.weight"]
        assert relative_error(effective(merged.model, key), weights[key] + up @ down) < 1e-6


@pytest.mark.long
def test_a_text_encoder_is_read_from_a_folder_of_transformers(run, tmp_path, checkpoint):
    """AdvUnlearn's: the UNet is the base's, the text encoder is the safe one."""
    clip = checkpoint[1]
    held = {
        key.removeprefix("clip_l.transformer."): value.float()
        for key, value in clip.patcher.model.state_dict().items()
        if key.startswith("clip_l.transformer.text_model.")
    }
    config = transformers.CLIPTextConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
    )
    network = transformers.CLIPTextModel(config)
    own = {name: name if name in held else f"text_model.{name}" for name in network.state_dict()}
    safe = {name: held[own[name]].clone() for name in own if own[name] in held}
    moved = [name for name in safe if "layers.11.mlp" in name]
    for name in moved:
        safe[name] += 0.1 * safe[name].std().nan_to_num(1.0).clamp(min=0.1)
    network.load_state_dict(safe, strict=False)
    network.save_pretrained(tmp_path / "nudity_unlearned")
    made = run(tmp_path / "nudity_unlearned")
    assert made.report["weights"]["changed"] == len(moved)
    assert set(made.report["kinds"]) == {"text encoder"}
    _, patched = comfy.sd.load_lora_for_models(None, clip, dict(made.module.tensors), 1.0, 1.0)
    for name in moved:
        key = f"clip_l.transformer.{own[name]}"
        held_in_half = relative_error(effective(patched.patcher, key), safe[name])
        assert held_in_half < 1e-3


@pytest.mark.parametrize("key", ["Flux", "ZImage"])
def test_a_transformer_in_diffusers_names(run, tmp_path, checkpoint, key):
    model = safe_models.base(key)
    weights = safe_models.weights_of(model)
    safe = safe_models.tuned(weights, lambda name: "attn" in name or "attention" in name)
    table = of_class(key).diffusers(model.model.model_config.unet_config)
    (tmp_path / "transformer").mkdir()
    file = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file(safe_models.transformer(table, safe), file)
    made = run(tmp_path / "transformer", model)
    merged = merge(model, [made.module], clip=checkpoint[1])
    for name, value in safe.items():
        torch.testing.assert_close(effective(merged.model, name), value, rtol=1e-5, atol=1e-6)


class Code:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


def test_a_pickle_with_code_is_refused_and_not_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "safe.ckpt").write_bytes(pickle.dumps({"state_dict": Code()}, protocol=2))
    (tmp_path / "new.ckpt").write_bytes(pickle.dumps({"state_dict": Code()}, protocol=4))
    torch.save({"state_dict": {"a.weight": torch.ones(1)}, "hook": Code()}, tmp_path / "zip.ckpt")
    with pytest.raises(ModuleFileError, match=r"new.ckpt: this pickle asks for more .*Convert"):
        run(tmp_path / "new.ckpt")
    for name in ("safe.ckpt", "zip.ckpt"):
        with pytest.raises(
            ModuleFileError, match=rf"{name}: this pickle asks for .*mkdir.*Convert"
        ):
            run(tmp_path / name)
    assert not (tmp_path / "it-ran").exists()


def spoiled(safe, how: str):
    """A checkpoint with one fault."""
    found = safe_models.checkpoint(safe)
    key = next(key for key in found if "attn2.to_k" in key)
    match how:
        case "NaN":
            found[key][0, 0] = torch.nan
        case "missing":
            del found[key]
        case "another size":
            found[key] = torch.ones(5, 5)
        case "quantised":
            found[f"{key.removesuffix('.weight')}.scale_weight"] = torch.ones(1)
        case "another family":
            found = safe_models.checkpoint(safe_models.weights_of(safe_models.base("Flux")))
    return found


FAULTS = {
    "NaN": r"1 of \d+ tensors hold NaN or infinite values \(first: .*attn2.to_k.weight\)",
    "missing": r"1 of this model's \d+ weights are not in it \(first: .*attn2.to_k.weight\)",
    "another size": r"1 of \d+ tensors have another size \(first: .*to_k.weight: \(5, 5\) on",
    "quantised": r"1 of \d+ tensors are of quantised weights",
    "another family": r"tensors have no place in this model .*The base that is loaded is SD15",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused(run, tmp_path, safe, fault):
    save_file(spoiled(safe, fault), tmp_path / "safe.safetensors")
    with pytest.raises(ModuleFileError, match=rf"safe\.safetensors: .*{FAULTS[fault]}"):
        run(tmp_path / "safe.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_base_that_is_not_finite_is_refused(checkpoint, tmp_path, safe, monkeypatch):
    save_file(safe_models.checkpoint(safe), tmp_path / "safe.safetensors")
    base, found = Loaded(safe_models.base(), checkpoint[1]), Loaded.w0
    monkeypatch.setattr(Loaded, "w0", lambda self, key: found(self, key) * torch.nan)
    with pytest.raises(ModuleFileError, match=r"The base model holds NaN .*first: .*Load another"):
        extract(base, tmp_path / "safe.safetensors", tmp_path / "out.safetensors", FULL, NUDITY)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_sealed_lora_and_an_output_that_is_there_are_refused(run, tmp_path, models, checkpoint):
    (sealed,) = (models / "loras").glob("safety-demo.safetensors")
    with pytest.raises(ModuleFileError, match="it is a safety LoRA of this pack already"):
        run(sealed)
    (tmp_path / "there.safetensors").touch()
    base = Loaded(safe_models.base(), checkpoint[1])
    with pytest.raises(FileExistsError, match="choose another name"):
        extract(base, sealed, tmp_path / "there.safetensors", FULL, NUDITY)


def test_patches_on_the_base_are_refused(checkpoint):
    model = safe_models.base()
    key = next(iter(safe_models.weights_of(model)))
    model.add_patches({key: ("diff", (torch.ones(1),))})
    with pytest.raises(ValueError, match="carries LoRAs or other patches"):
        Loaded(model, checkpoint[1])
