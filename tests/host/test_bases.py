"""Which base a model is: the digest of its file's weights, and what a module says of its own."""

import dataclasses
import hashlib
import logging
import os
import re

import comfy.sd
import comfy_extras.nodes_model_merging as mixing
import pytest
import torch
from attack_stage import load
from modular_safety_lora.host import bases
from modular_safety_lora.lab import assets, zoo
from modular_safety_lora.merge.merge import merge
from safetensors import safe_open
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def digest(models) -> str:
    """By the rule of docs/module-files.md, with nothing of the pack's."""
    found, prefix = hashlib.sha256(), "model.diffusion_model."
    with safe_open(str(models / "checkpoints" / assets.CHECKPOINT), framework="np") as file:
        # SIM118 takes the file for a mapping, which it is not.
        for name in sorted(name for name in file.keys() if name.startswith(prefix)):  # noqa: SIM118
            value = file.get_tensor(name)
            shape = ",".join(map(str, value.shape))
            found.update(f"{name.removeprefix(prefix)}\0F16\0{shape}\0".encode() + value.tobytes())
    return found.hexdigest()


def test_the_report_has_the_digest_of_the_loaded_weights_whatever_sits_on_them(stage, digest):
    patched = load(stage, stage.base, 0.5, file=stage.harmless)[0]
    mixed = mixing.ModelMergeSimple().merge(stage.base, patched, 0.5)[0]
    for model in (stage.base, stage.base.clone(), patched, mixed):
        report = stage.merged(model=model).report
        assert report["base_sha256"] == digest and report["base_warnings"] == []
        assert "base_sha256_unknown" not in report


def test_the_weights_alone_in_a_file_have_the_digest_that_they_have_in_a_checkpoint(
    models, digest, tmp_path
):
    weights = load_file(models / "checkpoints" / assets.CHECKPOINT)
    alone = {
        name.removeprefix(bases.PREFIXES[0]): value
        for name, value in weights.items()
        if name.startswith(bases.PREFIXES[0])
    }
    save_file(alone, tmp_path / "unet.safetensors")
    model = comfy.sd.load_diffusion_model(str(tmp_path / "unet.safetensors"))
    assert bases.origin(model).sha256 == digest


@pytest.mark.parametrize("prefix", ["net.", "model.model."])
def test_the_digest_is_of_the_weights_below_the_prefix_that_the_host_takes(
    models, model, digest, tmp_path, prefix
):
    whole = load_file(models / "checkpoints" / assets.CHECKPOINT)
    renamed = {name.replace(bases.PREFIXES[0], prefix): value for name, value in whole.items()}
    save_file(renamed, tmp_path / "renamed.safetensors")
    model.cached_patcher_init = (None, (str(tmp_path / "renamed.safetensors"),))
    assert bases.origin(model).sha256 == digest
    save_file(whole | {f"{prefix}x": torch.ones(1)}, tmp_path / "both.safetensors")
    model.cached_patcher_init = (None, (str(tmp_path / "both.safetensors"),))
    known = bases.origin(model)
    assert known.sha256 is None
    assert re.match(r"both.* contains 2 diffusion models \(model.diff.* and ", known.unknown)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (None, "by a loader of ComfyUI's own"),
        ("x.ckpt", "x.ckpt is not"),
        ("x.safetensors", "was moved or deleted"),
    ],
)
def test_a_base_that_is_not_known_is_null_with_the_reason(safety, model, name, reason, tmp_path):
    model.cached_patcher_init = (None, (str(tmp_path / name),)) if name else None
    report = merge(model, [safety]).report
    assert report["base_sha256"] is None and reason in report["base_sha256_unknown"]
    assert bases.origin(zoo.build("SD15")).sha256 is None


def test_a_file_is_read_once_and_again_when_it_was_replaced(model, models, tmp_path):
    file = tmp_path / "base.safetensors"
    file.write_bytes((models / "loras" / assets.SAFETY).read_bytes())
    model.cached_patcher_init = (None, (str(file),))
    before, read = bases.origin(model), bases._sha256.cache_info().misses
    assert bases.origin(model) == before and bases._sha256.cache_info().misses == read
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    if os.name == "posix":  # elsewhere there is no third time
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert bases.origin(model).sha256 != before.sha256


def test_a_module_that_meets_another_base_than_its_own_says_so(safety, model, digest, caplog):
    named = {
        name: dataclasses.replace(safety, metadata={**safety.metadata, "msl.base_sha256": name})
        for name in (digest, "f" * 64)
    }
    assert merge(model, [named[digest]]).report["base_warnings"] == []
    with caplog.at_level(logging.WARNING):
        (warning,) = merge(model, [named["f" * 64]]).report["base_warnings"]
    assert warning.startswith(f"{safety.name} was made for another base")
    assert warning.endswith(f"(Made for {'f' * 12}, this one is {digest[:12]}.)")
    assert warning in caplog.text


@pytest.mark.parametrize(("times", "known"), [(1, True), (bases.TRIES, False)])
def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch, times, known):
    """As by a backup that links it; what changes each time is not known."""
    file, original, names = tmp_path / "base.safetensors", bases.tensors_sha256, []
    save_file({"x": torch.ones(2)}, file)

    def changed(*given):
        if len(names) < times:
            names.append(tmp_path / f"{len(names)}.safetensors")
            names[-1].hardlink_to(file)
        return original(*given)

    monkeypatch.setattr(bases, "tensors_sha256", changed)
    found = bases.of_file(file)
    assert (found.sha256 is not None) is known and len(names) == times
    assert known or "is being written; load it again" in found.unknown
