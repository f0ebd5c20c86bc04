"""What is on a model beside plain weight patches: what may change its weights, and the rest."""

import inspect
from collections.abc import Sequence

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ..host.comfy_types import Clip, Patch
from ..host.weights import check_patcher
from ..modules.errors import SafetyError
from ..options.words import amount

MERGED = "msl_merged"  # the attachment of every model and text encoder that went through a merge
KEY = "msl_lock"  # under which the lock of a merged model is kept, and asked
OVERRIDE = "optimized_attention_override"  # the host's option: another function for all attention


def check_given(model: ModelPatcher, clip: Clip | None, policy: str) -> list[dict[str, str]]:
    """What is on a MODEL and a CLIP that is to be merged, and can't be measured.

    Raises SafetyError for one that went through a merge already, and under the policy `refuse` when
    anything is found.
    """
    patchers = {"model": model} | ({} if clip is None else {"text encoder": clip.patcher})
    for what, patcher in patchers.items():
        check_patcher(patcher)
        if patcher.get_attachment(MERGED) is not None:
            raise SafetyError(
                f"This {what} went through Modular Merge already. Use one Modular Merge: chain all"
                " LoRA loaders into it, and connect it to the loader of the base."
            )
    found = [item for patcher in patchers.values() for item in foreign_changes(patcher)]
    if found and policy == "refuse":
        raise SafetyError(_foreign_message(found))
    return found


def foreign_changes(patcher: ModelPatcher) -> list[dict[str, str]]:
    """Kind and name of what may change a model's weights and is no plain weight patch."""
    found = [
        {"kind": "bypass or injected module", "name": str(key)}
        for key, injections in patcher.injections.items()
        if injections
    ]
    found += [
        {"kind": "hook weights", "name": str(key)}
        for hook in patcher.hook_patches.values()
        for key, entries in hook.items()
        if not all(map(does_nothing, entries))
    ]
    found += [
        {"kind": "weight wrapper", "name": str(key)} for key in patcher.weight_wrapper_patches
    ]
    found += [
        {"kind": "replaced module", "name": key + _compiled(patcher.object_patches[key])}
        for key in patcher.object_patches
        if _replaces(patcher, key)
    ]
    if patcher.forced_hooks is not None:
        found.append({"kind": "hook weights", "name": "hooks set on the text encoder"})
    return found + [
        {"kind": "compiled network", "name": f"{key}, which is not this model's own"}
        for key in _compiled_elsewhere(patcher)
    ]


def left_on(network: torch.nn.Module) -> list[str]:
    """Modules of a network that run other code than their own class, or more than it.

    The host puts a bypass into the network itself, which all clones of a model share, and does not
    always take it out with the model that it belongs to. Where it does, it leaves an attribute that
    gives the class's own code: presence alone says nothing.
    """
    if not any(map(_runs_other_code, network.modules())):
        return []  # names take most of the time
    return [name for name, module in network.named_modules() if _runs_other_code(module)]


def _runs_other_code(module: torch.nn.Module) -> bool:
    own = vars(module)
    if own["_forward_hooks"] or own["_forward_pre_hooks"]:
        return True
    return "forward" in own and (
        getattr(own["forward"], "__func__", None) is not type(module).forward
        or own["forward"].__self__ is not module
    )


def does_nothing(entry: Patch) -> bool:
    """Whether a patch leaves a weight as it is: strength 0 and a scaling by 1."""
    strength, value, strength_model, *_ = entry
    sets = isinstance(value, tuple) and value[0] == "set"  # whatever the strength
    return strength == 0.0 and strength_model == 1.0 and not sets


def _replaces(patcher: ModelPatcher, key: str) -> bool:
    """Whether an object patch puts into the network what computes, and not just a setting of it."""
    value = patcher.object_patches[key]
    computes = callable(value) or isinstance(value, torch.Tensor)
    return computes and (key == "diffusion_model" or key.startswith("diffusion_model."))


def _compiled(value: object) -> str:
    """What to do about a compiled module in a module's place, to stand after its name.

    The host looks for weights by name, and below it finds no patch for any.
    """
    compiled = hasattr(value, "_orig_mod")
    return " (compiled: ComfyUI patches no weight in it; use TorchCompileModel)" if compiled else ""


def _compiled_elsewhere(patcher: ModelPatcher) -> list[str]:
    """Parts of the network in whose place another model's run, compiled.

    So it is after TorchCompileModel and then another device. What it compiled stands in the wrapper
    that puts it in place; a wrapper that can't be looked into counts too.
    """
    found = []
    for wrapper in patcher.get_wrappers(WrappersMP.APPLY_MODEL, COMPILE_KEY):
        compiled = inspect.getclosurevars(wrapper).nonlocals.get("compiled_module_dict")
        if compiled is None:
            found.append("a compiled network")
            continue
        for key, module in compiled.items():
            if getattr(module, "_orig_mod", module) is not patcher.get_model_object(key):
                found.append(key)
    return found


def weight_free_patches(patcher: ModelPatcher) -> list[dict[str, str]]:
    """Patches and wrappers that change no weight, by name: allowed, and in the report."""
    options = patcher.model_options
    inside = options.get("transformer_options", {})
    found = [
        {"kind": "model object", "name": key}
        for key in patcher.object_patches
        if not key.startswith("diffusion_model")
    ]
    found += [
        {"kind": "block or attention patch", "name": str(name)}
        for name in inside.get("patches", {})
    ]
    found += [
        {"kind": "replaced attention", "name": str(name)}
        for name in (*inside.get("patches_replace", {}), *(inside.keys() & {OVERRIDE}))
    ]
    found += [
        {"kind": "wrapper", "name": f"{kind} {name}"}
        for kind, by_key in patcher.wrappers.items()
        for name, functions in by_key.items()
        if functions and name != KEY
    ]
    return found + [
        {"kind": "sampling function", "name": key}
        for key in options
        if key.startswith(("sampler_", "model_func"))
    ]


def _foreign_message(found: Sequence[dict[str, str]]) -> str:
    first = found[0]
    return (
        f"{amount(len(found), 'change')} on this model can't be measured against its loaded"
        " weights. Remove them, or load their file with Load Task LoRA into Modular Merge, or set"
        f" foreign_changes to report. (First: {first['kind']} {first['name']}.)"
    )
