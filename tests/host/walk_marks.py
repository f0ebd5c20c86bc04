"""What a node must leave alone: the host's functions, and what sits on base and merged model."""

import sys

from attack_stage import Stage

HOST = (
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "nodes",
)
ON_A_PATCHER = (
    "patches",
    "object_patches",
    "model_options",
    "attachments",
    "additional_models",
    "callbacks",
    "wrappers",
    "injections",
    "hook_patches",
    "weight_wrapper_patches",
    "forced_hooks",
    "load_device",
)


def host_modules(classes: dict[str, tuple[list[int], list[str]]]) -> dict[str, dict[str, object]]:
    """The namespaces of the host's modules, and of the classes made there.

    `classes` keeps, by module, the names of its classes for as long as it holds the same objects.
    """
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in HOST or name in ("torch", "torch.nn.functional"):
            found[name] = space = dict(vars(module))
            now = identities(space)
            if classes.get(name, ((),))[0] != now:
                made = [
                    key
                    for key, value in space.items()
                    if isinstance(value, type) and value.__module__ == name
                ]
                classes[name] = now, made
            found |= {f"{name}.{key}": dict(vars(space[key])) for key in classes[name][1]}
    return found


class Marks:
    """What a node must leave alone, by identity.

    That is the host's functions, and what sits on the base and on the merged model. Names are
    looked at only where a namespace does not hold the very objects that it held before.
    """

    def __init__(self, stage: Stage, merged):
        self.stage, self.merged = stage, merged
        self.known: dict[str, dict[str, object]] = {}
        self.patched: dict[str, object] = {}
        self.classes: dict[str, tuple[list[int], list[str]]] = {}
        self.left_behind()

    def left_behind(self) -> list[str]:
        """What changed since the last reading, or is new on a network."""
        spaces = host_modules(self.classes)
        changed = {
            f"{name}.{key}"
            for name in spaces.keys() & self.known.keys()
            if identities(spaces[name]) != identities(self.known[name])
            for key in spaces[name].keys() & self.known[name].keys()
            if callable(spaces[name][key]) and callable(self.known[name][key])
            if spaces[name][key] is not self.known[name][key]
        }
        patched, before = on_patchers(self.stage, self.merged), self.patched
        self.known, self.patched = spaces, patched
        changed |= {key for key in before.keys() & patched.keys() if before[key] != patched[key]}
        new = patched.keys() - before.keys() if before else ()
        return sorted(changed | {key for key in new if ".model." in key})


def identities(space: dict[str, object]) -> list[int]:
    return [*map(id, space.values())]


def on_patchers(stage: Stage, merged) -> dict[str, object]:
    """What sits on the base, on the merged model, and on their text encoders and networks."""
    found = {}
    patchers = {
        "base": stage.base,
        "base clip": stage.base_clip.patcher,
        "merged": merged.model,
        "clip": merged.clip.patcher,
    }
    for name, patcher in patchers.items():
        found |= {f"{name}.{each}": frozen(getattr(patcher, each)) for each in ON_A_PATCHER}
        found |= {
            f"{name}.model.{each}": True
            for each in vars(patcher.model)
            if each not in patcher.object_patches
        }
    return found


def frozen(value: object) -> object:
    """A value as containers of identities, so that a change inside shows."""
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else id(value)
