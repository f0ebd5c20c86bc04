"""What an extracted change keeps of a safe model in function, and what its layers do."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from comfy.patcher_extension import CallbacksMP

from ..function.inputs import EMPTY, Moments, short_form
from ..function.measure import Arm, measured, reference
from ..function.network import bare
from ..function.texts import encoded
from ..host.denoiser import Denoiser
from ..host.lending import lent
from ..merge.coverage import Target, target_key
from ..merge.in_function import EXPECTED as OF_ONE
from ..merge.in_function import UNRUN
from ..merge.rounding import format_of, hold_at_use
from .loaded import NETWORK, Loaded

logger = logging.getLogger(__name__)
Json: TypeAlias = dict[str, Any]
# by target: strength, and the host's own parsed patch
Patches: TypeAlias = Mapping[Target, tuple[float, Any]]
EXPECTED = OF_ONE  # forwards of one measurement
LITTLE = "the safe model hardly changes them: give prompts of what it suppresses"


def in_function(
    base: Loaded,
    changes: tuple[Patches, Patches],
    moments: Moments,
    prompts: Sequence[str],
    step: Callable[[int], None],
) -> Json:
    """How much of what a safe model changes of its prompts the extracted change does: rho_f.

    `changes` are the safe model's and the extracted one; without the first the second is the safe
    model. `effect` is |d_s - d_b| / |d_b|. Where nothing could be measured, `reason` says why.
    """
    made = 0

    def counted(count: int) -> None:
        nonlocal made
        made += count
        step(min(made, EXPECTED))

    safe, extracted = changes
    about: Json = {"prompts": list(prompts), "retained": None, "effect": None}
    try:
        with torch.no_grad():
            found = reference(
                _arm(base, {}, prompts),
                _arm(base, safe or extracted, prompts),
                short_form(moments, prompts),
                resolution=moments.resolution,
                identity=None,
                step=counted,
            )
            number, _ = measured(found, _arm(base, extracted, prompts), counted)
    except UNRUN as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        logger.warning("What the safety LoRA keeps in function is not measured: %s", said)
        return about | {"reason": f"the model does not run here ({said})"}
    if not number.is_measurable:
        return about | {"effect": number.effect, "reason": LITTLE}
    return about | {"retained": number.retained, "effect": number.effect, "reason": None}


def _arm(base: Loaded, patches: Patches, prompts: Sequence[str]) -> Arm:
    """The base with patches on it, those of coarse formats held as a merge holds them: at use."""
    model, clip = bare(base.model), base.clip.clone()
    for patcher, is_network in ((model, True), (clip.patcher, False)):
        for target, (strength, value) in patches.items():
            if target_key(target).startswith(NETWORK) == is_network:
                patcher.add_patches({target: value}, strength)
    coarse = frozenset(key for key in model.patches if format_of(model, key))
    model.add_callback_with_key(
        CallbacksMP.ON_LOAD, "msl_at_use", lambda each, *_, **__: hold_at_use(each, coarse)
    )
    return Arm(model, encoded(clip, prompts))


def roles_of(base: Loaded) -> dict[str, str]:
    """The role of each layer of the network (host/structure.py); none where it can't be run."""
    text = encoded(base.clip, [EMPTY])[EMPTY].conditioning
    try:
        with lent(base.model) as own:
            return Denoiser(own).roles(text)
    except UNRUN as error:
        logger.warning("The roles of layers are not known: the model does not run here (%s)", error)
        return {}
