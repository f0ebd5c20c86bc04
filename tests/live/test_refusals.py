"""What a live server makes no picture of: modules that do not fit, a broken lock, bad values."""

import pytest
import torch
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import PromptRefused
from prompting import failure, run


def test_a_safety_module_for_another_base_makes_no_picture(server, shipped_prompt, put):
    other = {"diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": torch.ones(4, 8)}
    other["diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight"] = torch.ones(24, 4)
    name = put("flux-safety.safetensors", other, {"msl.base": "Flux"})
    message = failure(run(server, shipped_prompt, n2__lora_name=name))
    assert message.startswith(
        "flux-safety.safetensors does not fit this model: it was made for Flux, and this model is"
        " SD15. Use it on its own base"
    )
    assert "(2 of 2 safety tensors do not fit, first: diffusion_model.double" in message


def test_a_renamed_safety_key_makes_no_picture(server, shipped_prompt, put, sealed_tensors):
    key = sorted(sealed_tensors)[0]
    sealed_tensors[key.replace("attn2", "attn3")] = sealed_tensors.pop(key)
    name = put("renamed.safetensors", sealed_tensors, {"msl.base": "SD15"})
    message = failure(run(server, shipped_prompt, n2__lora_name=name))
    assert (
        message.startswith("renamed.safetensors does not fit this model")
        and f"(1 of {len(sealed_tensors)} safety tensors" in message
        and key in message
    )


def test_a_safety_tensor_of_the_wrong_shape_makes_no_picture(
    server, shipped_prompt, put, sealed_tensors
):
    key = sorted(key for key in sealed_tensors if "lora_B" in key)[0]
    sealed_tensors[key] = sealed_tensors[key][:-8]
    name = put("misshapen.safetensors", sealed_tensors, {"msl.base": "SD15"})
    message = failure(run(server, shipped_prompt, n2__lora_name=name))
    assert f"(2 of {len(sealed_tensors)} safety tensors do not fit" in message
    assert key.replace("lora_B", "lora_A") in message and "on a weight of (320, 768)" in message


def test_a_damaged_safety_module_makes_no_picture(server, shipped_prompt, put, models):
    content = bytearray((models / "loras" / assets.SAFETY).read_bytes())
    content[-1] ^= 1
    name = put("damaged.safetensors", content=bytes(content))
    assert "damaged.safetensors: this safety LoRA was changed after it was sealed." in failure(
        run(server, shipped_prompt, n2__lora_name=name)
    )


def test_a_safety_module_in_the_task_loader_and_the_other_way_round(server, shipped_prompt):
    """Before anything runs."""
    with pytest.raises(PromptRefused, match="this is a safety LoRA. Load it with Load Safety"):
        run(server, shipped_prompt, n3__lora_name=assets.SAFETY)
    with pytest.raises(PromptRefused, match="this is a task LoRA, and only sealed safety"):
        run(server, shipped_prompt, n2__lora_name=assets.STYLE)


def test_each_loader_lists_what_it_takes(server):
    def listed(node: str) -> list[str]:
        info = server.get(f"/object_info/{node}").json()[node]
        return info["input"]["required"]["lora_name"][1]["options"]

    assert assets.SAFETY in listed("MSL_LoadSafetyLora")
    assert assets.STYLE not in listed("MSL_LoadSafetyLora")
    assert assets.STYLE in listed("MSL_LoadTaskLora")
    assert assets.SAFETY not in listed("MSL_LoadTaskLora")
    # a sealed one too: a report is sealed into it
    assert assets.SAFETY in listed("MSL_SealSafetyLora")
    assert assets.STYLE not in listed("MSL_SealSafetyLora")


def test_a_lora_loader_after_the_merge_stops_sampling(server, shipped_prompt):
    loader = {"model": ["5", 0], "lora_name": assets.STYLE, "strength_model": -1.0}
    prompt = {**shipped_prompt, "20": {"class_type": "LoraLoaderModelOnly", "inputs": loader}}
    message = failure(run(server, prompt, n9__model=["20", 0]))
    assert "is not whole on the model that samples" in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("n2__lora_name", "../../checkpoints/small-sd15.safetensors"),
        ("n2__lora_name", "missing.safetensors"),
        ("n5__foreign_changes", "ignore"),
        ("n11__preset", "nothing"),
        ("n11__threshold", 2.0),
        ("n11__classes", "FACE"),
        ("n11__action", "STOP"),
        ("n3__strength_model", "strong"),
        ("n5__safety", ["3", 0]),
        ("n5__tasks", ["2", 0]),
    ],
)
def test_bad_values_are_refused_before_anything_runs(server, shipped_prompt, place, value):
    with pytest.raises(PromptRefused) as caught:
        run(server, shipped_prompt, **{place: value})
    assert caught.value.errors["node_errors"]


def test_a_merge_without_its_safety_module_is_refused(server, shipped_prompt):
    del shipped_prompt["5"]["inputs"]["safety"]
    with pytest.raises(PromptRefused, match="safety"):
        run(server, shipped_prompt)
