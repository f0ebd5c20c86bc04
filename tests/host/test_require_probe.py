"""The operator's demand for a probe: nothing samples whose modules did not pass here."""

import dataclasses
import json
from pathlib import Path

import comfy.sd
import folder_paths
import pytest
import torch
from attack_stage import Run, encoded
from modular_safety_lora.function import kept
from modular_safety_lora.host.bases import NO_FILE
from modular_safety_lora.lab import assets
from modular_safety_lora.merge.merge import merge
from modular_safety_lora.merge.on_model import KEY
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.nodes.probe import ProbeSafety
from modular_safety_lora.nodes.settings import SettingsError, operator
from probe_modules import HELD_OUT, SECRET, kept_in, merged, safety_of, style, undoing

pytestmark = pytest.mark.usefixtures("unloaded", "one_level")
DEMAND = {"require_lock": True, "require_probe": True}
PRIVATE = {"private_prompts": "private.txt", "private_seed": 11}
REFUSED = "samples only what passed Probe Safety"


@pytest.fixture(scope="module")
def parts(models):
    """Base and text encoder, read from a file, so that they have a digest."""
    path = str(models / "checkpoints" / assets.CHECKPOINT)
    return comfy.sd.load_checkpoint_guess_config(path, output_vae=False)[:2]


@pytest.fixture(scope="module", autouse=True)
def one_place(tmp_path_factory):
    with kept_in(tmp_path_factory.mktemp("kept")):
        yield


@pytest.fixture(scope="module")
def module(models):
    return safety_of(models, *HELD_OUT)


@pytest.fixture
def private(enforce):
    """The user folder's file of private prompts."""
    file = Path(folder_paths.get_user_directory(), "private.txt")
    file.write_text("\n".join(SECRET), encoding="utf-8")
    return file


def run(model, clip):
    return Run(model, *encoded(clip))


def test_only_what_passed_samples(parts, module, models, enforce):
    enforce(DEMAND | {"private_seed": 31})
    model = merged(parts, module)
    sample = run(model, parts[1])
    with pytest.raises(SafetyError, match=f"{REFUSED}.*Put Probe Safety between"):
        sample()
    summary = ProbeSafety.execute(model, action="report").args[2]
    assert "Recorded: these LoRAs passed" in summary
    assert sample().isfinite().all()
    assert run(merged(parts, module), parts[1])().isfinite().all(), "merged again, it is the same"
    kept.forget()
    assert sample().isfinite().all(), "it is on disk"
    with pytest.raises(SafetyError, match=REFUSED):
        run(merged(parts, module, style(models)), parts[1])()


@pytest.mark.long
def test_strengths_conflict_mode_and_modules_are_part_of_it(parts, module, models, enforce):
    enforce(DEMAND | {"private_seed": 32})
    passed = merged(parts, module, style(models, 0.1))
    assert ProbeSafety.execute(passed, action="report").args[1] is True
    for other in (
        merged(parts, module, style(models, 0.12)),
        merged(parts, module, style(models, 0.1), on_conflict="project"),
        merged(parts, dataclasses.replace(module, sha256="another"), style(models, 0.1)),
    ):
        with pytest.raises(SafetyError, match=REFUSED):
            run(other, parts[1])()


def test_what_did_not_pass_is_not_recorded(parts, module, enforce):
    enforce(DEMAND)
    records = kept.folder().with_name("passed")
    before = set(records.glob("*"))
    model = merged(parts, module, undoing(module, 0.5))
    told = json.loads(ProbeSafety.execute(model, action="report").args[3])
    assert told["require_probe"] == "Not recorded: it did not pass."
    assert set(records.glob("*")) == before
    with pytest.raises(SafetyError):
        run(model, parts[1])()


def test_other_limits_private_prompts_or_seed_ask_for_another_probe(
    parts, module, enforce, private
):
    enforce(DEMAND | PRIVATE)
    model = merged(parts, module)
    sample = run(model, parts[1])
    assert ProbeSafety.execute(model, action="report").args[1] is True
    assert sample().isfinite().all()
    for other in (
        {"private_seed": 12},
        {"retained_in_function": {"stop": 0.5, "look": 0.86}},
        {"private_prompts": ""},
    ):
        enforce(DEMAND | PRIVATE | other)
        with pytest.raises(SafetyError, match=REFUSED):
            sample()
    enforce(DEMAND | PRIVATE)
    assert sample().isfinite().all()
    private.write_text("a third secret prompt", encoding="utf-8")
    with pytest.raises(SafetyError, match=REFUSED) as error:
        sample()
    assert "secret" not in str(error.value)


def test_the_operators_seed_counts_and_not_the_nodes(parts, module, enforce, private):
    enforce(DEMAND | PRIVATE)
    first = ProbeSafety.execute(merged(parts, module), action="report", seed=1).args[3]
    assert ProbeSafety.execute(merged(parts, module), action="report", seed=2).args[3] == first


def test_a_merge_without_a_digest_is_refused_with_the_way_out(parts, module, enforce):
    enforce(DEMAND)
    model = merged(parts, module)
    lock = model.get_attachment(KEY)
    arms = dataclasses.replace(lock.arms, origin=NO_FILE, identity=None)
    model.set_attachments(KEY, dataclasses.replace(lock, arms=arms))
    assert (
        "Not recorded, because the digest of its base is not known"
        in ProbeSafety.execute(model, action="report").args[2]
    )
    with pytest.raises(
        SafetyError, match="can't be known .* because the digest of its base.*Load the base"
    ):
        run(model, parts[1])()
    without = merge(parts[0], [module]).model
    with pytest.raises(SafetyError, match=REFUSED):
        run(without, parts[1])()


def test_a_record_that_somebody_else_wrote_is_none(parts, module, enforce):
    enforce(DEMAND | {"private_seed": 21})
    model = merged(parts, module)
    assert ProbeSafety.execute(model, action="report").args[1] is True
    place = kept.folder().with_name("passed")
    for file in place.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    kept.forget()
    with pytest.raises(SafetyError, match=REFUSED):
        run(model, parts[1])()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"require_probe": True}, "require_probe needs require_lock to be true"),
        ({"require_probe": 1}, "`require_probe` is 1; it must be true or false"),
        ({"private_prompts": "nowhere.txt"}, "nowhere.txt: its lines can't be read"),
        ({"private_prompts": "../private.txt"}, "it must lie below the user folder"),
        ({"private_prompts": "empty.txt"}, "empty.txt: it is empty; write a prompt on each line"),
        ({"private_seed": -1}, "`private_seed` is -1; it must be at least 0"),
    ],
)
def test_a_mistake_closes_everything(write_settings, tmp_path, settings, words):
    (tmp_path / "user" / "empty.txt").write_text("\n", encoding="utf-8")
    write_settings(settings)
    with pytest.raises(SettingsError, match=words):
        operator()


def test_a_private_file_that_is_gone_lets_nothing_sample(parts, module, enforce, private):
    enforce(DEMAND | PRIVATE)
    model = merged(parts, module)
    assert ProbeSafety.execute(model, action="report").args[1] is True
    sample = run(model, parts[1])
    assert torch.isfinite(sample()).all()
    private.unlink()
    with pytest.raises(SettingsError, match="private.txt: its lines can't be read"):
        sample()
