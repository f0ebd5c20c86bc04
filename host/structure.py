"""What attends to what: the role of every layer of a diffusion model, seen in one forward pass.

Layers are followed by what they compute, not by what they are called. Every call of attention is
noted: the host hands it to `optimized_attention_override`, and where it does not, its function is
stood in for. What q, k and v were made from is read in autograd's graph, which is cut behind each
layer, so that it leads to the layers directly before.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from .layers import layers_of

if TYPE_CHECKING:  # layers are told apart without it
    from comfy.model_base import BaseModel

SELF, CROSS, JOINT, FUSED = "self-attention", "cross-attention", "joint attention", "fused"
MLP, MODULATION, EMBEDDER, OTHER = "feed-forward", "modulation", "embedder", "other"
LAYER_ROLES = (SELF, CROSS, JOINT, FUSED, MLP, MODULATION, EMBEDDER, OTHER)
ATTENTION = ("optimized_attention", "optimized_attention_masked")  # the host's names of it
TEXT, PICTURE = "text", "picture"  # whose tokens a value holds; neither: a vector of the whole
Tag: TypeAlias = str | int  # of a leaf: a layer's or condition's name, an attention's number


def roles_of(
    base: BaseModel, noisy: torch.Tensor, sigma: torch.Tensor, conditions: Mapping[str, Any]
) -> dict[str, str]:
    """The role of each layer of a host's BaseModel, by its name in the diffusion model.

    The arguments after it are those of one forward pass: latents (1, C, ...), sigma (1,), and the
    model's own keyword arguments. Cross-attention reads text for picture tokens, joint attention
    has both in one sequence, and fused layers hold attention and feed-forward in one. Embedders are
    what stands before, beside and after the blocks. Experts that the pass did not reach have the
    role of their siblings.
    """
    return _by_siblings(seen_in(base, noisy, sigma, conditions).roles())


def seen_in(
    base: BaseModel, noisy: torch.Tensor, sigma: torch.Tensor, conditions: Mapping[str, Any]
) -> Seen:
    """What the same forward pass shows, of each layer and each attention."""
    seen = Seen(base.diffusion_model)
    given = {name: seen.source(value, name) for name, value in conditions.items()}
    options = {"optimized_attention_override": seen.attend}
    with torch.enable_grad(), seen.watching():
        base._apply_model(
            seen.leaf(noisy, "x", {PICTURE}), sigma, transformer_options=options, **given
        )
    return seen


@dataclass
class _Attention:
    """One call of attention: the layers behind q, k and v, whose tokens they hold, its width."""

    layers: set[str]
    asks: set[str]  # TEXT, PICTURE: of q
    reads: set[str]  # of k
    width: int

    @property
    def role(self) -> str:
        if TEXT in self.reads and PICTURE in self.asks | self.reads:
            return JOINT if TEXT in self.asks else CROSS
        return SELF


@dataclass
class Seen:
    """What a forward pass showed: a graph of layers and attentions."""

    network: torch.nn.Module
    leaves: dict[int, tuple[torch.Tensor, Tag, set[str]]] = field(default_factory=dict)
    attentions: list[_Attention] = field(default_factory=list)
    # by layer: what its inputs were made from (layers' names, attentions' numbers), whose tokens
    inputs: dict[str, tuple[set[Tag], set[str]]] = field(default_factory=dict)
    attending: bool = False

    def leaf(self, value: torch.Tensor, tag: Tag, kinds: set[str]) -> torch.Tensor:
        """A value at which autograd's graph starts; it can be written to."""
        start = value.detach().requires_grad_()
        self.leaves[id(start)] = (start, tag, kinds)
        return start.clone()

    def source(self, value: object, name: str) -> object:
        """A condition, marked: tokens of text, or of a picture that is given beside the noise."""
        if isinstance(value, list):
            return [self.source(each, name) for each in value]
        if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
            return value
        tokens = {PICTURE} if name == "c_concat" else {TEXT} if value.ndim > 2 else set()
        return self.leaf(value, name, tokens)

    def behind(self, value: torch.Tensor) -> tuple[set[Tag], set[str]]:
        """The tags of the leaves that a value was made from, and whose tokens they hold."""
        tags: set[Tag] = set()
        kinds: set[str] = set()
        known: set[Any] = set()
        waiting: list[Any] = [value.grad_fn]  # torch has no type for the leaves of its graph
        while waiting:
            node = waiting.pop()
            if node is None or node in known:
                continue
            known.add(node)
            if hasattr(node, "variable") and id(node.variable) in self.leaves:
                _, tag, own = self.leaves[id(node.variable)]
                tags.add(tag)
                kinds |= own
            waiting += [each for each, _ in node.next_functions]
        return tags, kinds

    def attend(
        self,
        attention: Callable[..., torch.Tensor],
        q: Any,
        k: Any,
        v: Any,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """In place of the host's attention: the same, and noted."""
        q, k, v = _tensor(q), _tensor(k), _tensor(v)
        if self.attending:
            return attention(q, k, v, *args, **kwargs)
        layers, (_, asks), (_, reads) = set(), self.behind(q), self.behind(k)
        for each in (q, k, v):
            layers |= {tag for tag in self.behind(each)[0] if isinstance(tag, str)}
        self.attending = True
        try:
            with torch.no_grad():
                result = attention(q, k, v, *args, **kwargs)
        finally:
            self.attending = False
        self.attentions.append(_Attention(layers, asks, reads, result.shape[-1]))
        return self.leaf(result, len(self.attentions) - 1, asks)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Cut the graph behind every layer, and note every attention, for a block."""
        with contextlib.ExitStack() as stack:
            for name, module in layers_of(self.network).items():
                hook = module.register_forward_hook(functools.partial(self._cut, name))
                stack.callback(hook.remove)
            places = {sys.modules.get(type(each).__module__) for each in self.network.modules()}
            for place in places - {None}:
                for name in ATTENTION:
                    attention = vars(place).get(name)
                    if attention is not None:
                        stack.callback(setattr, place, name, attention)
                        setattr(place, name, functools.partial(self.attend, attention))
            yield

    def _cut(
        self,
        name: str,
        module: torch.nn.Module,
        given: tuple[torch.Tensor, ...],
        result: torch.Tensor,
    ) -> torch.Tensor:
        tags, kinds = self.behind(given[0])
        if given[0].ndim == 2 and len(given[0]) == 1:
            kinds = set()  # one vector, whatever it was gathered from
        before = self.inputs.get(name, (set(), set()))
        self.inputs[name] = (before[0] | tags, before[1] | kinds)
        return self.leaf(result, name, kinds)

    def roles(self) -> dict[str, str]:
        layers = layers_of(self.network)
        found = dict.fromkeys(layers, "")
        blocks = set()
        for number, attention in enumerate(self.attentions):
            own = attention.layers & layers.keys()
            after = {name for name, (tags, _) in self.inputs.items() if number in tags}
            wide = {
                name for name in after if getattr(layers[name], "in_features", 0) > attention.width
            }
            # what goes into the same layer beside the attention: a gate, or half of a fused layer
            before = {tag for name in after for tag in self.inputs[name][0]}
            beside = {name for name in layers if name in before}
            role = FUSED if wide and beside & own else attention.role
            for name in own | after | (beside if role != FUSED else set()):
                found[name] = role if found[name] in ("", SELF) else found[name]
            blocks |= {block for block in map(self._block, own) if block}
        holding = {name.split(".")[0] for name, role in found.items() if role}
        for name, (_, kinds) in self.inputs.items():
            if found[name]:
                continue
            if any(name.startswith(f"{block}.") for block in blocks):
                found[name] = MLP if kinds else MODULATION
            else:
                found[name] = OTHER if self._is_inside(name, holding) else EMBEDDER
        return found

    def _is_inside(self, name: str, holding: set[str]) -> bool:
        """Whether a layer is in the body of the network, between what attends."""
        top = name.split(".")[0]
        return top in holding and (
            self._block(name) is not None
            or isinstance(self.network.get_submodule(top), torch.nn.Sequential)
        )

    def _block(self, name: str) -> str | None:
        """The block that a layer is in: the nearest module around it that is one of a list."""
        parts = name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            if isinstance(
                self.network.get_submodule(".".join(parts[: end - 1])), torch.nn.ModuleList
            ):
                return ".".join(parts[:end])
        return None


def _tensor(value: Any) -> torch.Tensor:
    """What attention is given; newer hosts hand it over in a container, from which it is taken."""
    return value if isinstance(value, torch.Tensor) else value.take()


def _by_siblings(roles: dict[str, str]) -> dict[str, str]:
    """The same, where experts have one role: those that were not reached, or saw one token."""
    alike: dict[str, set[str]] = {}
    for name, role in roles.items():
        alike.setdefault(re.sub(r"\d+", "N", name), set()).add(role)
    made = {}
    for name, role in roles.items():
        found = alike[re.sub(r"\d+", "N", name)] - {""}
        one = MLP if MLP in found and role in ("", MODULATION) else role
        made[name] = one or next(iter(sorted(found)), OTHER)
    return made
