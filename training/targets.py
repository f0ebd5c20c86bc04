"""Which layers of a model a choice of targets means: by what they do, whatever they are called."""

import time
from collections import Counter
from collections.abc import Mapping

import regex  # ComfyUI's own transformers need it: what `re` reads, with a limit of time
import torch

from ..host.layers import is_linear
from ..host.structure import (
    CROSS,
    EMBEDDER,
    FUSED,
    JOINT,
    LAYER_ROLES,
    MLP,
    OTHER,
    SELF,
)
from ..options.words import amount

Roles = Mapping[str, str]  # by layer, as host/structure.py finds them
ATTENTION = (SELF, CROSS, JOINT, FUSED)
# what each choice trains; where no layer reads text alone, `cross-attention` is `JOINED`
TARGETS = {
    "attention": ATTENTION,
    "cross-attention": (CROSS,),
    "attention+mlp": (*ATTENTION, MLP),
    "all": LAYER_ROLES,
}
JOINED = (JOINT, FUSED)
SECONDS = 2  # to look for a pattern in all names, which takes milliseconds
LEFT_OUT = "label_emb"  # of `all`: diffusers does not load a LoRA for it


def trainable(network: torch.nn.Module) -> list[str]:
    """The layers that can have an adapter: linear layers, and convolutions that are not grouped."""
    return [
        name
        for name, module in network.named_modules()
        if is_linear(module) or (isinstance(module, torch.nn.Conv2d) and module.groups == 1)
    ]


def reading(roles: Roles) -> tuple[str, ...]:
    """The roles of what reads the text: cross-attention, or where there is none, joint."""
    return (CROSS,) if CROSS in roles.values() else JOINED


def of_roles(network: torch.nn.Module, roles: Roles, wanted: tuple[str, ...]) -> list[str]:
    """The layers of these roles that can have an adapter, in the model's order."""
    return [name for name in trainable(network) if roles.get(name) in wanted]


def text_layers(network: torch.nn.Module, roles: Roles) -> list[str]:
    """The layers that read the text and can have an adapter."""
    return of_roles(network, roles, reading(roles))


def target_layers(network: torch.nn.Module, roles: Roles, targets: str = "attention") -> list[str]:
    """The names of the layers that a choice of targets means, in the model's order.

    `attention`: every linear layer of the attentions, fused ones included; `cross-attention`: those
    that read the text; `attention+mlp`: with the feed-forward layers; `all`: every linear layer and
    convolution; anything else is a regular expression, found anywhere in the names of them. Raises
    ValueError when nothing is meant.
    """
    layers = trainable(network)
    if targets in TARGETS:
        wanted = reading(roles) if targets == "cross-attention" else TARGETS[targets]
        linear = targets != "all"
        found = [
            name
            for name in of_roles(network, roles, wanted)
            if not (linear and not is_linear(network.get_submodule(name)))
            and not (targets == "all" and name.startswith(LEFT_OUT))
        ]
    else:
        found = matching(layers, targets)
    if not found:
        raise ValueError(
            f"No layer of this model matches the targets {targets!r}; it has layers like"
            f" {layers[:3]}."
        )
    return found


def narrowed(layers: list[str], pattern: str) -> list[str]:
    """Those that have a regular expression in their names; with an empty one all of them.

    Raises ValueError where none has it.
    """
    found = matching(layers, pattern) if pattern else layers
    if not found:
        raise ValueError(
            f"layer_pattern is {pattern!r}, and no layer of this method has it in its name;"
            f" there are layers like {layers[:3]}."
        )
    return found


def check_targets(targets: str) -> None:
    """Raise ValueError for targets that are neither a choice nor a regular expression."""
    if not targets:
        raise ValueError(f"The targets are empty; choose one of {', '.join(TARGETS)}.")
    if (fault := _fault_of(targets)) is not None:
        raise ValueError(
            f"The targets {targets!r} are neither one of {', '.join(TARGETS)} nor a regular"
            f" expression ({fault})."
        )


def check_layer_pattern(pattern: str) -> None:
    """Raise ValueError for what is no regular expression."""
    if (fault := _fault_of(pattern)) is not None:
        raise ValueError(f"layer_pattern is {pattern!r}; it is no regular expression ({fault}).")


def _fault_of(pattern: str) -> Exception | None:
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        return error
    return None


def check_pattern(network: torch.nn.Module, targets: str) -> None:
    """Raise ValueError for a regular expression that is in no name of a layer."""
    if targets not in TARGETS:
        target_layers(network, {}, targets)


def matching(names: list[str], pattern: str) -> list[str]:
    """The names that a regular expression is found in.

    Raises ValueError for what is none, and for one that takes too long: some take longer than
    anybody waits, and the process can't be stopped meanwhile.
    """
    check_targets(pattern)
    ends = time.monotonic() + SECONDS
    try:
        return [
            name
            for name in names
            if regex.search(pattern, name, timeout=max(ends - time.monotonic(), 1e-3))
        ]
    except TimeoutError as error:
        raise ValueError(
            f"The targets {pattern!r} took more than {SECONDS} s to match. Write the expression"
            " without nested repetitions such as (a+)+."
        ) from error


def count_roles(layers: list[str], roles: Roles) -> dict[str, int]:
    """How many of these layers have each role."""
    return dict(Counter(roles.get(name, OTHER) for name in layers))


def told(layers: list[str], roles: Roles) -> str:
    """The count of layers by role, as a sentence."""
    counts = ", ".join(f"{count} {role}" for role, count in count_roles(layers, roles).items())
    return f"{amount(len(layers), 'layer')}: {counts}"


def check_layers(layers: list[str], roles: Roles) -> None:
    """Raise ValueError for a choice with no layer, or that trains embedders alone."""
    if not layers:
        raise ValueError(
            f"This model has no layer that can be trained here, among its {told([*roles], roles)}."
        )
    if {roles.get(name) for name in layers} == {EMBEDDER}:
        raise ValueError(
            f"None of the chosen layers ({len(layers)}, first: {layers[0]}) is an attention or"
            " feed-forward layer. Choose other targets."
        )
