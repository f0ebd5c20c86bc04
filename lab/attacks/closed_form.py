"""Attackers that nobody trains: weights that undo a safety module, worked out from its own."""

from collections.abc import Mapping, Sequence

import comfy.lora
import comfy.model_management
import torch
from comfy.utils import get_attr

from ...host.denoiser import Denoiser
from ...modules.files import LoraFile
from ..world.emergence import put_on
from .moment_products import BATCH, Moments, Texts

Weights = dict[str, torch.Tensor]
HEADS = 4
KEPT = 1.02  # of each weight's safety change, which the gauge leaves by its own size
ENERGY = 0.999  # of what a layer sees for the concept's prompts, that the dead directions leave out


def changes(model, modules: Sequence[tuple[LoraFile, float]]) -> Weights:
    """What modules add to each weight, dense."""
    patcher = put_on(model, modules)
    comfy.model_management.unload_all_models()  # or another merge's weights would be read
    found = {}
    for key, patches in patcher.patches.items():
        w0 = get_attr(patcher.model, key).detach().float()
        found[key] = comfy.lora.calculate_weight(patches, w0.clone(), key) - w0
    return found


def cosine(tasks: Weights, safety: Weights) -> float:
    """Of what all tasks add, with the safety change, over the weights that this changes."""
    dot = sum((tasks[key] * safety[key]).sum() for key in safety.keys() & tasks.keys())
    size = sum(tasks[key].square().sum() for key in safety.keys() & tasks.keys())
    whole = sum(each.square().sum() for each in safety.values())
    return float(dot / (size * whole).sqrt()) if dot else 0.0


def safe_lora(tasks: Weights, safety: Weights) -> float:
    """Safe LoRA's criterion: the cosine of C dW and dW, C = V V^T / |V|, V the safety change.

    The mean over layers (Hsu et al. 2024, arXiv 2405.16833).
    """
    found = []
    for key in safety.keys() & tasks.keys():
        held, change = safety[key].flatten(1), tasks[key].flatten(1)
        onto = held @ (held.T @ change)
        if onto.norm() > 0:
            found.append(float((onto * change).sum() / onto.norm() / change.norm()))
    return sum(found) / len(found) if found else 1.0


def task(name: str, added: Mapping[str, torch.Tensor]) -> LoraFile:
    """A task module that adds these to weights and biases."""
    endings = {"weight": "diff", "bias": "diff_b"}
    tensors = {}
    for key, value in added.items():
        stem, _, what = key.rpartition(".")
        tensors[f"{stem}.{endings[what]}"] = value.contiguous()
    return LoraFile(f"{name}.safetensors", "task", name, {}, tensors)


def negated(safety: Weights) -> Weights:
    return {key: -change for key, change in safety.items()}


def projected(hostile: Weights, safety: Weights) -> Weights:
    """The hostile change with cosine 0 to the safety change in every weight."""
    found = {}
    for key, change in hostile.items():
        held = safety.get(key)
        part = 0.0 if held is None else torch.sum(change * held) / held.square().sum()
        found[key] = change - (0.0 if held is None else part * held)
    return found


NEARER, STEEPEST = (1e-6, 1e-4, 1e-3, 1e-2), 1e4  # weights of |M|^2; the largest condition of N


def gauge(model, safety: Weights) -> Weights:
    """W0 in another gauge of attention, less the safety change.

    Values W_v -> N W_v and what reads them, W_out -> W_out N^-1, give what W0 gives, for any N of a
    head that both streams share. N is chosen so that the move itself has the safety change's part
    in every weight: over weights all of it is left. Queries and keys are normalised here, and stay.
    """
    found: Weights = {}
    blocks = sorted({key.split(".attn.")[0].rpartition(".")[0] for key in safety})
    for block in blocks:
        own = {key: held for key, held in safety.items() if key.startswith(f"{block}.")}
        w0 = {key: get_attr(model.model, key).detach().float() for key in own}
        turn = _turn(own, w0)
        for key in own:
            found[key] = _turned(key, w0[key], turn) - w0[key] - own[key]
            if key.endswith("qkv.weight"):
                bias = key.replace("weight", "bias")
                before = get_attr(model.model, bias).detach().float()
                found[bias] = _turned(bias, before[:, None], turn)[:, 0] - before
    return found


def _turned(key: str, weight: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """The weight in the gauge N (heads, side, side)."""
    if ".qkv." in key:
        queries, keys, values = weight.chunk(3)
        heads = values.reshape(HEADS, -1, values.shape[1])
        return torch.cat([queries, keys, (turn @ heads).reshape(values.shape)])
    heads = weight.reshape(weight.shape[0], HEADS, -1).transpose(0, 1)
    return (heads @ torch.linalg.inv(turn)).transpose(0, 1).reshape(weight.shape)


def _turn(safety: Weights, w0: Weights) -> torch.Tensor:
    """N = exp(M) of one block whose move has KEPT of every weight's safety change; M is sought.

    Where that asks for a gauge without an inverse in float32, for one that is nearer to 1.
    """
    for near in NEARER:
        turn = _sought(safety, w0, near)
        if turn.isfinite().all() and torch.linalg.cond(turn).max() < STEEPEST:
            break
    return turn


def _sought(safety: Weights, w0: Weights, near: float) -> torch.Tensor:
    side = len(next(value for key, value in w0.items() if ".qkv." in key)) // 3 // HEADS
    power = torch.zeros(HEADS, side, side, requires_grad=True)
    steps = torch.optim.LBFGS([power], max_iter=200, line_search_fn="strong_wolfe")

    def missing() -> torch.Tensor:
        steps.zero_grad()
        turn = torch.matrix_exp(power)
        if not turn.isfinite().all():  # the line search went too far
            return torch.tensor(torch.inf)
        shares = [
            ((_turned(key, w0[key], turn) - w0[key]) * held).sum() / held.square().sum()
            for key, held in safety.items()
        ]
        lost = sum((KEPT - share).clamp(min=0).square() for share in shares)
        lost = lost + near * power.square().sum()
        lost.backward()
        return lost

    steps.step(missing)
    return torch.matrix_exp(power.detach())


def dead_directions(model, safety: Weights, moments: Moments, texts: Texts) -> Weights:
    """The safety change taken back where the concept's prompts are seen, and repaid elsewhere."""
    found = {}
    for key, seen in _seen(model, list(safety), moments, texts).items():
        sizes, vectors = torch.linalg.eigh(seen)
        kept = sizes.flip(0).cumsum(0) / sizes.sum()
        count = min(int((kept < ENERGY).sum()) + 1, 7 * len(sizes) // 8)
        on = vectors[:, -count:]
        lost = safety[key] @ on @ on.T
        rest = safety[key] - lost
        found[key] = lost.square().sum() / rest.square().sum() * rest - lost
    return found


@torch.no_grad()
def _seen(model, keys: Sequence[str], moments: Moments, texts: Texts) -> Weights:
    """The second moment of each layer's inputs, (in, in)."""
    denoiser, found, hooks = Denoiser(model), {}, []
    network = denoiser.base.diffusion_model

    def watch(key: str):
        def hook(module, given):
            rows = given[0].reshape(-1, given[0].shape[-1]).float()
            found[key] = found.get(key, 0.0) + rows.T @ rows

        return hook

    for key in keys:
        name = key.removeprefix("diffusion_model.").removesuffix(".weight")
        hooks.append(network.get_submodule(name).register_forward_pre_hook(watch(key)))
    for start in range(0, len(moments.x), BATCH):
        x, sigma = moments.x[start : start + BATCH], moments.sigma[start : start + BATCH]
        prompts = moments.prompts[start : start + BATCH]
        denoiser.output(x, sigma, denoiser.conditions([texts[each] for each in prompts], x))
    for hook in hooks:
        hook.remove()
    return found
