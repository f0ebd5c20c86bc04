"""PEFT adapters in a ComfyUI diffusion model: put in, trained, written, always taken out."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from ...host.layers import is_linear
from ...options.words import amount
from ..adapter_settings import AdapterSettings
from .held import dora_in_float32, seen_in_float32

if TYPE_CHECKING:  # a ComfyUI without it merges and audits
    from peft import LoraConfig, LoraModel

NAME = "msl"


def weight_count(network: torch.nn.Module, layers: list[str], settings: AdapterSettings) -> int:
    """How many weights adapters on these layers train: r (in + out), r (in k^2 + out) in a conv."""
    count = 0
    for layer in map(network.get_submodule, layers):
        if is_linear(layer):
            inner, outer = layer.in_features, layer.out_features
        elif isinstance(layer, torch.nn.Conv2d):
            inner, outer = layer.in_channels * math.prod(layer.kernel_size), layer.out_channels
        else:
            raise TypeError(f"A {type(layer).__name__} can't have an adapter.")
        count += settings.rank * (inner + outer) + settings.use_dora * outer
    return count


class Adapters:
    """The adapters in a model now; `parameters` are all that trains there, by PEFT's names."""

    def __init__(self, tuner: LoraModel, layers: list[str], settings: AdapterSettings):
        self.tuner = tuner
        self.layers = layers
        self.settings = settings
        self.parameters = {
            name: value for name, value in tuner.model.named_parameters() if value.requires_grad
        }

    @contextlib.contextmanager
    def switched_off(self) -> Iterator[None]:
        """The frozen base for a block: what the model gives without the adapters."""
        self.tuner.disable_adapter_layers()
        try:
            yield
        finally:
            self.tuner.enable_adapter_layers()

    @contextlib.contextmanager
    def out(self) -> Iterator[None]:
        """The model with its own layers alone for a block; the adapters keep what they learned.

        Gradients are let go: they take memory.
        """
        for value in self.parameters.values():
            value.grad = None
        network = self.tuner.model
        waiting = {layer: network.get_submodule(layer) for layer in self.layers}
        for layer, module in waiting.items():
            _put(network, layer, _base(module))
        try:
            yield
        finally:
            for layer, module in waiting.items():
                _put(network, layer, module)

    def broken_weights(self) -> dict[str, torch.dtype]:
        """The base's weights, as they are held, that have numbers which are not finite."""
        base = (
            (name, value)
            for name, value in self.tuner.model.named_parameters()
            if name not in self.parameters
        )
        return {
            name: value.dtype for name, value in base if not value.detach().float().isfinite().all()
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """The trained tensors under the names that the stock loader reads.

        These are `diffusion_model.<layer>.lora_A.weight` and so on. Each layer has an `alpha`, from
        which a loader that divides by the rank gets the trained scale back.
        """
        found = {}
        for layer in self.layers:
            key = f"diffusion_model.{layer}"
            for half in ("lora_A", "lora_B"):
                found[f"{key}.{half}.weight"] = (
                    self.parameters[f"{layer}.{half}.{NAME}.weight"].detach().clone()
                )
            found[f"{key}.alpha"] = torch.tensor(self.settings.scale * self.settings.rank)
            if self.settings.use_dora:
                found[f"{key}.dora_scale"] = self._dora_scale(layer)
        return found

    def _dora_scale(self, layer: str) -> torch.Tensor:
        """ComfyUI's DoRA scale (out, 1, ...), for |W0|, of PEFT's magnitude m, for |W0 + dW|."""
        module: Any = self.tuner.model.get_submodule(layer)  # PEFT's
        w0: torch.Tensor = module.get_base_layer().weight.detach().float()
        moved = w0 + module.get_delta_weight(NAME).detach().float()
        rows = (-1, *[1] * (w0.ndim - 1))
        magnitude = (
            self.parameters[f"{layer}.lora_magnitude_vector.{NAME}.weight"]
            .detach()
            .float()
            .reshape(rows)
        )
        return magnitude * (w0.flatten(1).norm(dim=1) / moved.flatten(1).norm(dim=1)).reshape(rows)


@contextlib.contextmanager
def adapters_in(
    diffusion_model: torch.nn.Module, layers: list[str], settings: AdapterSettings, seed: int = 0
) -> Iterator[Adapters]:
    """Adapters on the named layers of a borrowed model, which afterwards is as it was.

    It is so whatever happens in the block. A starts as in PEFT (Kaiming uniform, drawn from `seed`)
    and B at zero, so the first output is the base's. They are float32, whatever the weights are
    held in. Every other parameter is frozen; the flags of all come back.
    """
    flags = {name: value.requires_grad for name, value in diffusion_model.named_parameters()}
    attributes = set(vars(diffusion_model))
    own = [diffusion_model.get_submodule(layer) for layer in layers]
    config = _config(layers, own, settings)
    try:
        diffusion_model.requires_grad_(False)
        with torch.random.fork_rng(devices=[]), seen_in_float32(own):
            torch.manual_seed(seed)
            tuner = peft().LoraModel(diffusion_model, config, NAME)
        if settings.use_dora:
            for layer in layers:
                dora_in_float32(diffusion_model.get_submodule(layer), NAME)
        adapters = Adapters(tuner, list(layers), settings)
        _check_what_trains(adapters)
        yield adapters
    finally:
        _take_out(diffusion_model)
        for name in set(vars(diffusion_model)) - attributes:
            delattr(diffusion_model, name)
        for name, value in diffusion_model.named_parameters():
            value.requires_grad_(flags[name])


def _config(
    names: list[str], layers: list[torch.nn.Module], settings: AdapterSettings
) -> LoraConfig:
    config = peft().LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        # PEFT takes the names of a list as endings, and a pattern as a whole name
        target_modules="|".join(map(re.escape, names)),
    )
    # the host's layers of quantised weights, which compute as it computes them, with an adapter
    # beside them
    foreign = {
        type(each) for each in layers if is_linear(each) and not isinstance(each, torch.nn.Linear)
    }
    config._register_custom_module(dict.fromkeys(foreign, peft().tuners.lora.layer.Linear))
    return config


def _take_out(diffusion_model: torch.nn.Module) -> None:
    """Put every adapted layer's own module back, also when PEFT stopped halfway."""
    for name, module in list(diffusion_model.named_modules()):
        if isinstance(module, peft().tuners.lora.LoraLayer):
            _put(diffusion_model, name, _base(module))


def _base(adapted: Any) -> torch.nn.Module:
    """The layer that an adapted layer of PEFT's stands for."""
    return adapted.get_base_layer()


def peft() -> ModuleType:
    """PEFT, when training starts: a ComfyUI without it starts, and merges and audits."""
    try:
        import peft as library
    except ImportError as error:
        raise ValueError(
            f"Training needs PEFT, which can't be imported ({error}). Run install.py in the pack's"
            " folder."
        ) from error
    return library


def _put(network: torch.nn.Module, name: str, module: torch.nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _check_what_trains(adapters: Adapters) -> None:
    """What trains is exactly the adapters of the chosen layers, each of them, in float32."""
    kinds = ["lora_A", "lora_B"] + (["lora_magnitude_vector"] if adapters.settings.use_dora else [])
    expected = {f"{layer}.{kind}.{NAME}.weight" for layer in adapters.layers for kind in kinds}
    if set(adapters.parameters) != expected:
        odd = sorted(set(adapters.parameters) ^ expected)
        raise RuntimeError(
            "The trained parameters are not those that were chosen:"
            f" {amount(len(odd), 'difference')} (first: {odd[0]})."
        )
    others = {
        name: value.dtype
        for name, value in adapters.parameters.items()
        if value.dtype != torch.float32
    }
    if others:
        name, dtype = next(iter(others.items()))
        raise RuntimeError(
            f"Adapters must be float32; {len(others)} of {len(expected)} have another dtype (first:"
            f" {name}, {dtype})."
        )
