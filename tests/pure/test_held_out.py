"""Prompts that are held out: sealed with a module, and never those that it was made on."""

import json

import pytest
from modular_safety_lora.commands import main
from modular_safety_lora.function.inputs import moments_of
from modular_safety_lora.modules.errors import ModuleFileError
from modular_safety_lora.modules.files import load_safety, save_module
from modular_safety_lora.modules.sealing import Sealing, inspect, seal_file
from safetensors.torch import save_file
from torch import ones

TENSORS = {
    "diffusion_model.input_blocks.1.1.attn2.to_k.lora_A.weight": ones(4, 768),
    "diffusion_model.input_blocks.1.1.attn2.to_k.lora_B.weight": ones(320, 4),
}


@pytest.fixture
def eraser(tmp_path):
    save_file(TENSORS, tmp_path / "eraser.safetensors")
    return tmp_path / "eraser.safetensors"


def test_held_out_prompts_and_moments_are_sealed(eraser, tmp_path, capsys):
    output, lines = tmp_path / "sealed.safetensors", tmp_path / "held-out.txt"
    lines.write_text("a nude, standing\n\nbare\nbare\n", encoding="utf-8")
    words = ["seal", str(eraser), "--concept", "nude", "--output", str(output)]
    assert main([*words, "--held-out-file", str(lines)]) == 0
    module = load_safety(output, "sealed")
    assert module.prompts == ["nude"] and module.held_out == ["a nude, standing", "bare"]
    assert json.loads(module.metadata["msl.held_out"]) == module.held_out
    assert moments_of(module.metadata, "sealed").seeds == (1, 2)
    assert inspect(output)["held_out"] == module.held_out
    capsys.readouterr()


def test_a_module_without_them_has_none(eraser, tmp_path):
    output = tmp_path / "sealed.safetensors"
    seal_file(eraser, output, Sealing("nude"))
    assert load_safety(output, "sealed").held_out == [] and "held_out" not in inspect(output)


def test_a_prompt_that_is_in_both_lists_is_refused(eraser, tmp_path):
    output = tmp_path / "sealed.safetensors"
    with pytest.raises(ValueError, match="'Nude' is both held out and trained on"):
        seal_file(
            eraser,
            output,
            Sealing("nudity", prompts=["a hat", "nude"], held_out=["bare", "Nude"]),
        )
    assert not output.exists()


def test_a_list_that_is_none_does_not_load(tmp_path):
    file = tmp_path / "broken.safetensors"
    save_module(file, TENSORS, {"msl.held_out": '"bare"'}, "safety")
    with pytest.raises(ModuleFileError, match="msl.held_out is '\"bare\"'; it must be a JSON list"):
        load_safety(file, "broken")
