"""Retained safety in the report, what was on the model before, the lock when sampling starts."""

import json
import logging

import comfy.sample
import comfy.sd
import formats
import merging
import pytest
import torch
from comfy_api.torch_helpers.torch_compile import set_torch_compile_wrapper
from modular_safety_lora.lab import assets
from modular_safety_lora.merge import merge, on_model
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.nodes.nudity_audit import NudityAudit


@pytest.fixture
def safety(checkpoint):
    return formats.Lora(merging.shapes(checkpoint[0], *merging.LINEAR), 1)


def sample(model, clip):
    """Two steps of the stock sampler on 32x32 pixels."""
    latent = torch.zeros(1, 4, 4, 4)
    cond = clip.encode_from_tokens_scheduled(clip.tokenize("a picture"))
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample(
        model, noise, 2, 2.0, "euler", "normal", cond, cond, latent, seed=1, disable_pbar=True
    )


@pytest.mark.parametrize("kind", ["Lora", "Dora", "Loha", "Lokr", "Oft", "Glora", "Full"])
def test_retained_safety_is_the_formula_in_float64(checkpoint, safety, kind):
    module = getattr(formats, kind)(merging.shapes(checkpoint[0], *merging.LINEAR), 2, size=0.5)
    task = merge.Task(merging.task(module.tensors()), -0.8)
    report = merge.merge(
        checkpoint[0], [merging.safety(safety.tensors())], [task], foreign="report"
    ).report
    dots, squares, by_layer = 0.0, 0.0, {}
    sizes = [0.0, 0.0]
    for name in merging.LINEAR:
        w0 = merging.base(checkpoint[0], name)
        held, change = safety.delta(name, w0), -0.8 * module.delta(name, w0)
        dot, square = ((held + change) * held).sum().item(), (held * held).sum().item()
        dots, squares = dots + min(dot, square), squares + square  # no layer makes up for another
        by_layer[f"diffusion_model.{name}.weight"] = dot / square
        sizes = [
            sizes[0] + change.square().sum().item(),
            sizes[1] + w0.double().square().sum().item(),
        ]
    assert report["retained_safety"] == pytest.approx(dots / squares, abs=1e-4)
    worst = min(by_layer, key=by_layer.__getitem__)
    assert report["worst_layer"]["key"] == worst
    assert report["worst_layer"]["retained_safety"] == pytest.approx(by_layer[worst], abs=1e-4)
    assert report["low_layers"].keys() == {key for key, rho in by_layer.items() if rho < 0.9}
    assert report["modules"][1]["relative_size"] == pytest.approx(
        (sizes[0] / sizes[1]) ** 0.5, rel=1e-4
    )


def test_the_negated_safety_module_as_a_task_retains_nothing_and_is_stopped_at_sampling(
    checkpoint, safety, caplog
):
    model, clip = checkpoint
    task = merge.Task(merging.task(safety.tensors()), -1.0)
    with caplog.at_level(logging.WARNING):
        merged = merge.merge(model, [merging.safety(safety.tensors())], [task])
    assert merged.report["retained_safety"] == pytest.approx(0.0, abs=1e-5)
    assert "retained safety is" in caplog.text
    with pytest.raises(
        SafetyError, match=r"retained safety of safety.safetensors is -?0.000, under 0.9"
    ):
        sample(merged.model, clip)


def test_a_lora_before_the_merge_is_listed_and_counted(checkpoint, safety):
    undone, _ = comfy.sd.load_lora_for_models(checkpoint[0], None, safety.tensors(), -0.5, 1.0)
    report = merge.merge(undone, [merging.safety(safety.tensors())]).report
    assert report["retained_safety"] == pytest.approx(0.5, abs=1e-5)
    assert [module["role"] for module in report["modules"]] == ["safety", "existing"]


def test_the_merged_model_samples_and_differs_from_the_base(checkpoint, safety):
    model, clip = checkpoint
    merged = merge.merge(model, [merging.safety(safety.tensors())]).model
    first = sample(merged, clip)
    assert not torch.equal(first, sample(model, clip))
    assert torch.equal(first, sample(merged.clone(), clip))
    assert (
        model.get_attachment(on_model.KEY) is None
        and not model.patches
        and not model.wrappers.get("outer_sample")
    )


def changed(entries: list[tuple]) -> list[tuple]:
    """The same patches, the safety module's at a tenth of its strength."""
    strength, *rest = entries[-1]
    return [*entries[:-1], (0.1 * strength, *rest)]


def dropped(merged):
    merged.patches.pop(next(iter(merged.patches)))


def weakened(merged):
    key = next(iter(merged.patches))
    merged.patches[key] = changed(merged.patches[key])


def weakened_in_place(merged):
    entries = next(iter(merged.patches.values()))
    entries[:] = changed(entries)


def added(merged):
    key = next(iter(merged.patches))
    merged.patches[key].append((1.0, ("diff", (torch.ones(320, 320),)), 1.0, None, None))


def replaced(merged):
    merged.add_object_patch("diffusion_model.time_embed", torch.nn.Identity())


def wrapped(merged):
    merged.add_weight_wrapper("diffusion_model.time_embed.0.weight", lambda weight: weight * 0)


# What code can do that the nodes of tests/host/attacks.py don't; none of it gives the list of
# patches a new mark.
BY_CODE = {
    dropped: "the safety LoRA's change is gone from",
    weakened: "the safety LoRA's change is gone from",
    weakened_in_place: "the safety LoRA's change is gone from",
    added: "a later node changes",
    replaced: "replaced module diffusion_model.time_embed",
    wrapped: "weight wrapper diffusion_model.time_embed.0.weight",
}


@pytest.mark.parametrize("attack", BY_CODE, ids=lambda attack: attack.__name__)
def test_code_that_undoes_the_safety_change_is_found_whatever_mark_it_leaves(
    checkpoint, safety, attack
):
    model, clip = checkpoint
    merged = merge.merge(model, [merging.safety(safety.tensors())]).model
    attacked = merged.clone()
    attack(attacked)
    assert attacked.patches_uuid == merged.patches_uuid or attack in (replaced, wrapped)
    with pytest.raises(SafetyError, match=BY_CODE[attack]):
        sample(attacked, clip)
    sample(merged, clip)  # the next run works


def audited() -> dict:
    """The report of a Nudity Audit."""
    return json.loads(NudityAudit.execute(torch.zeros(1, 64, 64, 3)).args[2])


def test_report_lets_it_run_and_says_so(checkpoint, safety, caplog):
    model, clip = checkpoint
    merged = merge.merge(model, [merging.safety(safety.tensors())], foreign="report").model
    attacked, _ = comfy.sd.load_lora_for_models(merged, None, safety.tensors(), -1.0, 0.0)
    with caplog.at_level(logging.WARNING):
        sample(attacked, clip)
    assert "is not whole on the model that samples" in caplog.text
    assert "is not whole on the model that samples" in audited()["lock_findings"][0]
    sample(merged, clip)
    assert audited()["lock_findings"] == []


def test_a_network_that_is_compiled_after_the_merge_is_the_models_own(checkpoint, safety):
    merged = merge.merge(checkpoint[0], [merging.safety(safety.tensors())]).model
    compiled = merged.clone()
    set_torch_compile_wrapper(compiled, backend="eager")
    lock = merged.get_attachment(on_model.KEY)
    assert lock.faults(compiled) == []
    other = compiled.deepclone_multigpu(new_load_device=torch.device("cpu"))
    assert lock.faults(other) == ["compiled network diffusion_model, which is not this model's own"]


def test_what_leaves_weights_alone_and_came_after_the_merge_stands_in_the_audit(checkpoint, safety):
    """A hypernetwork, say: nobody can tell whether it means harm, so it is named."""
    model, clip = checkpoint
    merged = merge.merge(model, [merging.safety(safety.tensors())]).model
    later = merged.clone()
    later.set_model_attn2_patch(lambda n, context, value, extra: (n, context, value))
    inside = later.model_options["transformer_options"]
    inside["optimized_attention_override"] = lambda attention, *args, **kwargs: attention(
        *args, **kwargs
    )
    sample(later, clip)
    report = audited()
    assert report["lock_findings"] == []
    assert report["other_patches"] == [
        "block or attention patch attn2_patch",
        "replaced attention optimized_attention_override",
    ]
    sample(merged, clip)
    report = audited()
    assert report["other_patches"] == []


def test_what_cannot_be_measured_before_the_merge_is_refused_or_reported(checkpoint, safety):
    bypass, _ = comfy.sd.load_bypass_lora_for_models(
        checkpoint[0], None, safety.tensors(), -1.0, 0.0
    )
    with pytest.raises(
        SafetyError, match=r"can't be measured .* \(First: bypass or injected module"
    ):
        merge.merge(bypass, [merging.safety(safety.tensors())])
    report = merge.merge(bypass, [merging.safety(safety.tensors())], foreign="report").report
    assert report["foreign_changes"][0]["kind"] == "bypass or injected module"


def test_a_second_merge_on_top_is_refused(checkpoint, safety):
    """Its tasks could cancel the first merge's safety module, which it would not measure."""
    merged = merge.merge(checkpoint[0], [merging.safety(safety.tensors())]).model
    other = formats.Lora(merging.shapes(checkpoint[0], *merging.LINEAR), 5)
    against = merge.Task(merging.task(safety.tensors()), -1.0)
    with pytest.raises(SafetyError, match="This model went through Modular Merge already"):
        merge.merge(merged.clone(), [merging.safety(other.tensors())], [against])


@pytest.mark.parametrize("part", ["a safety module", "a task module"])
def test_a_text_encoder_that_went_through_a_merge_is_refused_by_the_next(checkpoint, safety, part):
    """Its patches would double, its lock would be another's, and retained safety would say 1.48."""
    model, clip = checkpoint
    text, own = assets.text_lora(5), merging.safety(safety.tensors())
    if part == "a safety module":
        once = merge.merge(model, [merging.safety(safety.tensors() | text)], clip=clip).clip
    else:
        once = merge.merge(model, [own], [merge.Task(merging.task(text))], clip).clip
    before = {key: list(entries) for key, entries in once.patcher.patches.items()}
    with pytest.raises(SafetyError, match="This text encoder went through Modular Merge already"):
        merge.merge(model, [own], clip=once.clone())
    assert (
        once.patcher.patches == before
        and merge.merge(model, [own], clip=clip).report["retained_safety"] == 1.0
    )
