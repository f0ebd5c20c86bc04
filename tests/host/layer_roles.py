"""The roles of layers by their names, as the zoo's rows say them."""

import re

from modular_safety_lora.host import structure
from modular_safety_lora.host.layers import layers_of
from modular_safety_lora.lab import zoo
from modular_safety_lora.training import targets

ALIKE = {"FluxInpaint": "Flux", "WAN21_I2V": "WAN21_T2V"}  # with more inputs, the same layers
OUTER = r"^(time_embed|label_emb|out|[xyt]_embedder|context_embedder|final_layer)\b"


def expected(family: str, layers) -> dict[str, str]:
    """The role of each layer that attends or feeds forward, by its name alone."""
    return {
        layer: role
        for role, pattern in zoo.TWINS[ALIKE.get(family, family)].roles.items()
        for layer in layers
        if re.fullmatch(pattern, layer)
    }


def named(network, family: str = "") -> dict[str, str]:
    """The role of each layer by its name alone; without a family, of a UNet or SD3.5."""
    layers = layers_of(network)
    family = family or ("SD35" if hasattr(network, "joint_blocks") else "SD15")
    outer = {
        layer: structure.EMBEDDER if re.search(OUTER, layer) else structure.OTHER
        for layer in layers
    }
    return outer | expected(family, layers)


def chosen(network, choice: str = "attention", family: str = "") -> list[str]:
    """The layers that a choice of targets means."""
    return targets.target_layers(network, named(network, family), choice)
