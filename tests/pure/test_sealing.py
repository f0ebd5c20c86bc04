"""Sealing a LoRA that someone trusts, inspecting what files are, and both from the command line."""

import json

import pytest
import torch
from cli import run
from modular_safety_lora.modules.architectures import architecture_of
from modular_safety_lora.modules.files import ModuleFileError, load_safety, save_module
from modular_safety_lora.modules.sealing import NO_LORA, Sealing, inspect, seal_file
from safetensors.torch import save_file

KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def lora(width: int = 768) -> dict[str, torch.Tensor]:
    return {
        f"{KOHYA}.lora_down.weight": torch.randn(4, width),
        f"{KOHYA}.lora_up.weight": torch.randn(320, 4),
        f"{KOHYA}.alpha": torch.tensor(4.0),
    }


@pytest.fixture
def plain(tmp_path):
    save_file(
        lora(), tmp_path / "eraser.safetensors", metadata={"ss_network_dim": "4", "msl.note": "x"}
    )
    return tmp_path / "eraser.safetensors"


def test_a_lora_becomes_a_sealed_safety_module(plain, tmp_path):
    output = tmp_path / "sealed.safetensors"
    digest = seal_file(plain, output, Sealing(" nudity ", 0.8))
    module = load_safety(output, "sealed", digest)
    about = {
        key: module.metadata[key]
        for key in ("msl.concept", "msl.method", "msl.base", "ss_network_dim")
    }
    assert about == {
        "msl.concept": "nudity",
        "msl.method": "imported",
        "msl.base": "SD15",
        "ss_network_dim": "4",
    }
    assert (
        module.sealed_strength == 0.8
        and "msl.note" not in module.metadata
        and module.prompts == ["nudity"]
    )
    with pytest.raises(FileExistsError, match="exists already"):
        seal_file(plain, output, Sealing("nudity"))
    with pytest.raises(ModuleFileError, match="it is a safety LoRA of this pack already"):
        seal_file(output, tmp_path / "again.safetensors", Sealing("nudity", 2.0))


def test_prompts_are_sealed_with_it_or_else_its_concept(plain, tmp_path):
    output, listed = tmp_path / "sealed.safetensors", tmp_path / "prompts.txt"
    seal_file(plain, output, Sealing("nude, naked"))
    assert load_safety(output, "sealed").metadata["msl.prompts"] == '["nude", "naked"]'
    listed.write_text("a nude, standing\r\n\n  naked \n", encoding="utf-8")
    other = tmp_path / "other.safetensors"
    done = run("seal", plain, "--concept", "nudity", "--output", other, "--prompts", listed)
    assert done.returncode == 0, done.stderr
    assert load_safety(other, "other").prompts == ["a nude, standing", "naked"]
    assert "prompts: ['a nude, standing', 'naked']" in run("inspect", other).stdout


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
def test_a_strength_that_cannot_be_sealed_is_refused(plain, tmp_path, strength):
    with pytest.raises(
        ValueError, match="strength is .*; it must be a finite number, at least 0.01"
    ):
        seal_file(plain, tmp_path / "x.safetensors", Sealing("nudity", strength))
    assert not (tmp_path / "x.safetensors").exists()


def test_what_is_no_lora_or_broken_is_refused(plain, tmp_path):
    output = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="The concept is empty"):
        seal_file(plain, output, Sealing(" "))
    save_file({"model.weight": torch.ones(2, 2)}, tmp_path / "checkpoint.safetensors")
    with pytest.raises(
        ModuleFileError, match=r"it contains no LoRA \(its first tensor: model.weight\)"
    ):
        seal_file(tmp_path / "checkpoint.safetensors", output, Sealing("nudity"))
    save_file(
        {**lora(), "a.lora_up.weight": torch.tensor([float("nan")])}, tmp_path / "nan.safetensors"
    )
    with pytest.raises(
        ModuleFileError,
        match=r"NaN or infinite values in 1 of its 4 tensors \(first: a.lora_up.weight\)",
    ):
        seal_file(tmp_path / "nan.safetensors", output, Sealing("nudity"))
    save_module(tmp_path / "task.safetensors", lora(), {}, "task")
    with pytest.raises(
        ModuleFileError, match="A task LoRA of this pack can't become a safety LoRA"
    ):
        seal_file(tmp_path / "task.safetensors", output, Sealing("nudity"))
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ModuleFileError, match="junk.safetensors"):
        seal_file(tmp_path / "junk.safetensors", output, Sealing("nudity"))
    assert not output.exists()


def test_the_base_is_read_from_the_tensors():
    assert [architecture_of(lora(width)) for width in (768, 1024, 2048, 100)] == [
        "SD15",
        "SD20",
        "SDXL",
        None,
    ]
    assert (
        architecture_of(
            {"diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": torch.ones(1)}
        )
        == "Flux"
    )
    assert (
        architecture_of(
            {
                "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_v.lora_A.weight": (
                    torch.ones(4, 2048)
                )
            }
        )
        == "SDXL"
    )


def test_inspect_says_what_a_file_is(plain, tmp_path):
    sealed, broken, task = (
        tmp_path / f"{name}.safetensors" for name in ("sealed", "broken", "task")
    )
    digest = seal_file(plain, sealed, Sealing("nudity"))
    content = bytearray(sealed.read_bytes())
    content[-1] ^= 1
    broken.write_bytes(content)
    save_module(task, lora(), {"msl.safety_mode": "detached", "msl.safety_sha256": digest}, "task")
    save_file({"model.diffusion_model.x": torch.ones(2, 2)}, tmp_path / "base.safetensors")
    assert inspect(tmp_path / "base.safetensors")["state"] == NO_LORA
    assert f"    allowed_safety: {digest}\n" in run("inspect", sealed).stdout
    found = {
        path.name: inspect(path)
        for path in (plain, sealed, broken, task, tmp_path / "missing.safetensors")
    }
    assert (
        found["eraser.safetensors"]["state"] == "LoRA without a role"
        and found["eraser.safetensors"]["base"] == "SD15"
    )
    assert found["sealed.safetensors"]["state"] == "sealed safety LoRA, intact"
    assert (found["sealed.safetensors"]["sha256"], found["sealed.safetensors"]["concept"]) == (
        digest,
        "nudity",
    )
    assert found["broken.safetensors"]["state"] == "safety LoRA, its seal is broken"
    assert "changed after it was sealed. Get the file again" in found["broken.safetensors"]["fault"]
    assert (
        found["task.safetensors"]["state"] == "task LoRA"
        and found["task.safetensors"]["safety_mode"] == "detached"
    )
    assert (
        found["missing.safetensors"]["state"] == "unreadable"
        and found["missing.safetensors"]["fault"]
    )


@pytest.mark.slow
def test_the_command_line_seals_and_inspects_files_and_folders(plain, tmp_path):
    (tmp_path / "loras").mkdir()
    for name in ("a", "b"):
        save_file(lora(), tmp_path / "loras" / f"{name}.safetensors")
    done = run(
        "seal",
        tmp_path / "loras",
        "--concept",
        "violence",
        "--output",
        tmp_path / "sealed",
        "--strength",
        "1.5",
    )
    assert done.returncode == 0, done.stderr
    digests = [
        load_safety(tmp_path / "sealed" / f"{name}.safetensors", name).sha256 for name in ("a", "b")
    ]
    assert all(digest in done.stdout for digest in digests)
    done = run("inspect", tmp_path / "sealed", plain)
    assert done.returncode == 0 and done.stdout.count("sealed safety LoRA, intact") == 2
    assert "LoRA without a role" in done.stdout and "    strength: 1.5" in done.stdout
    (tmp_path / "sealed" / "c.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    done = run("inspect", "--json", tmp_path / "sealed")
    assert (
        done.returncode == 1
        and [each["state"] for each in json.loads(done.stdout)][2] == "unreadable"
    )
    for code, arguments, reason in (
        (2, ["seal", plain], "required: --output"),
        (1, ["seal", plain, "--output", tmp_path / "o.safetensors"], "seal: The concept is empty"),
        (1, ["inspect", tmp_path / "none"], ""),
        (1, ["inspect", tmp_path / "empty"], "inspect: There is no .safetensors file in"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        done = run(*arguments)
        assert done.returncode == code and reason in done.stderr
