"""A ComfyUI MODEL lent for training, with gradients, and given back as it was."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import comfy.model_management as host
import torch
from comfy.model_patcher import ModelPatcher
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..options.choices import chosen
from ..options.words import amount
from .comfy_types import Clip

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def check_unpatched(model: ModelPatcher) -> None:
    """Raise ValueError for a model with patches: modules are trained on the loaded weights."""
    if model.patches:
        raise ValueError(
            f"This model carries LoRAs or other patches, on {amount(len(model.patches), 'weight')}."
            " Training needs the loaded weights alone: take the model straight from its loader."
        )


def load_for(model: ModelPatcher, batch: Sequence[int]) -> None:
    """Load a model for a batch of this shape, as the host's sampler does."""
    host.load_models_gpu([model], memory_required=model.memory_required(list(batch)))


@contextlib.contextmanager
def lent(model: ModelPatcher) -> Iterator[ModelPatcher]:
    """A clone whose weights are ordinary tensors, for a block outside of ComfyUI's inference mode.

    ComfyUI loads weights in inference mode, and autograd can't save such tensors. Each is stood in
    for by an ordinary tensor over the same memory, so nothing is copied. A dynamic patcher (NVIDIA)
    pages its weights; there the host makes a plain copy from the file, as for its own trainer.
    """
    training = host.in_training
    with torch.inference_mode(False), torch.enable_grad():
        clone = model.clone(disable_dynamic=True) if model.is_dynamic() else model.clone()
        host.unload_model_and_clones(clone)
        stood_in = _stand_in(clone)
        host.in_training = True
        try:
            yield clone
        finally:
            host.in_training = training
            host.unload_model_and_clones(clone)
            for place, name, tensor in stood_in:
                place[name] = tensor


@contextlib.contextmanager
def lent_clip(clip: Clip) -> Iterator[Clip]:
    """The same for a text encoder: a clone of the CLIP, outside of ComfyUI's inference mode."""
    with lent(clip.patcher) as own:
        clone = clip.clone()
        clone.patcher, clone.cond_stage_model = own, own.model
        yield clone


def computing_in(model: ModelPatcher, precision: str) -> ModelPatcher:
    """A clone whose network computes in bf16, fp16 or fp32.

    `auto` is fp32 on the CPU, else bf16 where the GPU has it, else fp16.
    """
    precision = chosen(precision, ("auto", *DTYPES), "precision")
    if precision == "auto":
        is_cpu = host.is_device_cpu(model.load_device)
        precision = (
            "fp32" if is_cpu else "bf16" if host.should_use_bf16(model.load_device) else "fp16"
        )
    clone = model.clone()
    if DTYPES[precision] != clone.model.get_dtype_inference():
        clone.set_model_compute_dtype(DTYPES[precision])
    return clone


def _stand_in(model: ModelPatcher) -> list[tuple[dict[str, Any], str, torch.Tensor]]:
    """Put ordinary tensors in the place of inference tensors; what stood where, to be put back."""
    replaced = []
    patched = (each for each in model.object_patches.values() if isinstance(each, torch.nn.Module))
    for module in (part for whole in (model.model, *patched) for part in whole.modules()):
        for place in (module._parameters, module._buffers):
            for name, tensor in place.items():
                if tensor is not None and tensor.is_inference():
                    replaced.append((place, name, tensor))
                    ordinary = _over_the_same_memory(tensor)
                    is_parameter = place is module._parameters
                    place[name] = (
                        torch.nn.Parameter(ordinary, requires_grad=False)
                        if is_parameter
                        else ordinary
                    )
    return replaced


def _over_the_same_memory(tensor: torch.Tensor) -> torch.Tensor:
    if is_traceable_wrapper_subclass(tensor):  # a quantised tensor is made of several
        names, context = tensor.__tensor_flatten__()
        parts = {name: _over_the_same_memory(getattr(tensor, name)) for name in names}
        return type(tensor).__tensor_unflatten__(parts, context, tensor.size(), tensor.stride())
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return tensor.clone()
    plain = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return plain.set_(
        tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride()
    )
