"""Short training runs on the small models: their settings, ended and resumed, and their tensors."""

import small_models
import torch
from modular_safety_lora.training.adapter_settings import AdapterSettings
from modular_safety_lora.training.engine.job import TrainingJob
from modular_safety_lora.training.settings import Settings
from modular_safety_lora.training.task import train_task
from safetensors.torch import load_file

HALF = (torch.float16, torch.bfloat16, torch.float8_e4m3fn)
LAYERS = r"attn2|in_layers\.2"  # linear layers with and without a bias, and convolutions
# the queries of SD3's last text block, which no picture depends on
UNUSED = "transformer.transformer_blocks.1.attn.add_q_proj.lora_B.weight"
LORA, DORA = AdapterSettings(2, 2.0), AdapterSettings(2, 2.0, use_dora=True)


def short_run(**changed) -> Settings:
    """Settings of a run of three steps."""
    return Settings(
        **{"steps": 3, "targets": LAYERS, "learning_rate": 1e-3, "adapter": LORA, **changed}
    )


def trained(model, settings: Settings, output, stops: tuple[int, ...] = (), texts=None, **more):
    """Train a task LoRA on a small model, ended and resumed at each of `stops`."""
    for stop in (*stops, settings.steps):
        job = TrainingJob(
            output, resume=bool(stops), on_step=lambda progress, stop=stop: progress.step < stop
        )
        result = train_task(model, small_models.dataset(model), texts or {}, settings, job, **more)
        if stop < settings.steps:
            kept = load_file(output.with_suffix(".resume"))
            assert {value.dtype for value in kept.values() if value.is_floating_point()} == {
                torch.float32
            }
    return result


def check(result) -> dict[str, torch.Tensor]:
    """The tensors of a run's file: float32, finite, and no longer where they started."""
    tensors = result.module.tensors
    assert all(
        value.dtype == torch.float32 and value.isfinite().all() for value in tensors.values()
    )
    assert all(
        value.abs().max() > 0
        for name, value in tensors.items()
        if ("lora_up" in name or "lora_B" in name) and name != UNUSED
    )
    return tensors
