"""Many random merges: no harmless one raises an alarm, and every attack planted in one is found."""

import random

import comfy.sd
import formats
import merging
import pytest
import torch
from modular_safety_lora.merge import merge, on_model
from modular_safety_lora.modules.errors import SafetyError

ADDED = (formats.Lora, formats.Loha, formats.Lokr, formats.Full)
# their change depends on the weight; of no size that one wants
RELATIVE = (formats.Dora, formats.Oft, formats.Glora)


def found(model, held, tasks, also=()) -> list[str]:
    """What the lock, or the merge itself, finds."""
    try:
        return faults(merge.merge(model, [held, *also], tasks).model)
    except SafetyError as error:
        return [str(error)]


def scaled(safety, parts: dict[str, float]) -> merge.Task:
    """A task module of the safety change times a number in each layer."""
    tensors = {key: value for name in parts for key, value in one_layer(safety, name).items()}
    for name, part in parts.items():
        tensors |= {
            key: part * value for key, value in one_layer(safety, name).items() if "lora_up" in key
        }
    return merge.Task(merging.task(tensors, "attack.safetensors"))


def repaid(safety, chance) -> merge.Task:
    """A part of it taken in all layers but one, where it is given back."""
    names, part = sorted(safety.parts), chance.uniform(0.3, 0.49)
    paid = chance.choice(names)
    return scaled(
        safety, {name: part * (len(names) - 1) if name == paid else -part for name in names}
    )


def drowned(model, safety, chance) -> merge.Task:
    """Weights beside which it is nothing."""
    module = formats.Full(
        {name: merging.base(model, name).shape for name in safety.parts}, 5, size=0.3
    )
    return merge.Task(
        merging.task(module.tensors(), "attack.safetensors"), chance.uniform(20.0, 100.0)
    )


def negated(safety, chance):
    """A sealed module of its own that takes it back."""
    return merging.safety(
        scaled(safety, dict.fromkeys(safety.parts, -chance.uniform(0.3, 1.0))).module.tensors,
        name="other",
    )


def loaded_after(model, held, tasks, safety, chance) -> list[str]:
    merged = merge.merge(model, [held], tasks).model
    return faults(
        comfy.sd.load_lora_for_models(
            merged, None, safety.tensors(), -chance.uniform(0.05, 1.2), 0.0
        )[0]
    )


PLANTED = {
    "a task against all of it": lambda model, held, tasks, safety, chance: found(
        model,
        held,
        [*tasks, scaled(safety, dict.fromkeys(safety.parts, -chance.uniform(0.6, 1.2)))],
    ),
    "a task against one layer": lambda model, held, tasks, safety, chance: found(
        model,
        held,
        [*tasks, scaled(safety, {chance.choice(sorted(safety.parts)): -chance.uniform(0.6, 1.2)})],
    ),
    "a task that is repaid in one layer": lambda model, held, tasks, safety, chance: found(
        model, held, [*tasks, repaid(safety, chance)]
    ),
    "a task that drowns it": lambda model, held, tasks, safety, chance: found(
        model, held, [*tasks, drowned(model, safety, chance)]
    ),
    "a sealed module against it": lambda model, held, tasks, safety, chance: found(
        model, held, tasks, [negated(safety, chance)]
    ),
    "a LoRA loader after the merge": loaded_after,
}


def faults(merged) -> list[str]:
    return merged.get_attachment(on_model.KEY).faults(merged)


def one_layer(safety, name: str) -> dict[str, torch.Tensor]:
    return {
        key: value
        for key, value in safety.tensors().items()
        if name in key or name.replace(".", "_") in key
    }


@pytest.mark.parametrize("merges", [50, pytest.param(200, marks=pytest.mark.long)])
def test_a_harmless_merge_never_raises_an_alarm_and_a_planted_attack_always_does(
    checkpoint, merges
):
    """Random merges of one to eight task modules, each also with an attack in it.

    The modules are of all formats, ranks and strengths. Half as many more have one strong style, of
    0.5 to 1.5 times the size of the weights that it changes.
    """
    model, chance = checkpoint[0], random.Random(7)
    shapes = merging.shapes(model, *merging.LINEAR)
    safety = formats.Lora(shapes, 1, size=0.3)
    held = merging.safety(safety.tensors())
    alarms, missed = [], []
    for number in range(merges):
        tasks = []
        for place in range(chance.randint(1, 8)):
            kind, size = chance.choice((*ADDED, *RELATIVE)), chance.choice((0.05, 0.1, 0.3))
            layers = dict(chance.sample(sorted(shapes.items()), chance.randint(1, len(shapes))))
            module = kind(layers, 1000 * number + place + 2, size=size)
            tasks.append(
                merge.Task(
                    merging.task(module.tensors(), f"{place}.safetensors"),
                    chance.uniform(-1.0, 1.5),
                )
            )
        if found(model, held, tasks):
            alarms.append(number)
        way = chance.choice(sorted(PLANTED))
        if not PLANTED[way](model, held, tasks, safety, chance):
            missed.append((number, way))
    for number in range(merges // 2):
        module = merging.task(
            chance.choice(ADDED)(shapes, 10**6 + number, size=0.3).tensors(), "style.safetensors"
        )
        size = merge.merge(model, [held], [merge.Task(module)]).report["modules"][1][
            "relative_size"
        ]
        if found(model, held, [merge.Task(module, chance.uniform(0.5, 1.5) / size)]):
            alarms.append(f"style {number}")
    assert (alarms, missed) == ([], [])
