"""What an extraction keeps of a safe model's change, in weights and in function, and says."""

import json

import comfy.sd
import pytest
import safe_models
import torch
from merging import effective
from modular_safety_lora.extraction.extract import extract
from modular_safety_lora.extraction.loaded import Loaded
from modular_safety_lora.extraction.report import in_words, warnings
from modular_safety_lora.extraction.settings import Extraction
from modular_safety_lora.lab.benchmarks import extract as benchmark
from modular_safety_lora.modules.errors import ModuleFileError
from modular_safety_lora.modules.sealing import Sealing
from safe_models import SMALL
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.usefixtures("unloaded", "one_thread")
FULL = Extraction(form="full", precision="fp32")
NUDITY = Sealing("nudity", prompts=("nude person", "naked"), held_out=("undressed",))


def wide(key: str) -> bool:
    """Of every kind: attention, a convolution, norms and biases."""
    return any(part in key for part in ("attn2.to_", "in_layers", "norm1", "proj_in"))


@pytest.fixture
def run(checkpoint, tmp_path):
    """Extracts from weights by ComfyUI's names, saved as a checkpoint; (base, what was made)."""

    def extracted(safe, how=FULL, model=None, **more):
        model = model or safe_models.base()
        save_file(safe_models.checkpoint(safe), tmp_path / "safe.safetensors")
        base, output = Loaded(model, checkpoint[1]), tmp_path / f"{how.form}.safetensors"
        source, more = tmp_path / "safe.safetensors", {"moments": SMALL, **more}
        return extract(base, source, output, how, NUDITY, **more)

    return extracted


def applied(model, path):
    """The file on a MODEL by ComfyUI's stock loader of LoRAs."""
    return comfy.sd.load_lora_for_models(model, None, load_file(path), 1.0, 1.0)[0]


def test_the_stock_loader_makes_the_safe_model_of_the_base(run, tmp_path):
    model = safe_models.base()
    weights = safe_models.weights_of(model)
    safe = safe_models.tuned(weights, wide)
    made = run(safe, model=model)
    patched = applied(model, tmp_path / "full.safetensors")
    for key, value in safe.items():
        torch.testing.assert_close(effective(patched, key), value, rtol=1e-5, atol=1e-6)
    changed = {key for key in safe if wide(key)}
    assert made.report["weights"] == {"changed": len(changed), "of": len(safe)}
    assert len(made.module.tensors) == len(changed)  # equal layers give nothing
    assert made.report["kept"] == 1.0
    assert made.report["function"]["retained"] == pytest.approx(1.0, abs=1e-4)
    kinds = made.report["kinds"]
    assert {"cross-attention", "norms"} <= kinds.keys()
    assert sum(each["weights"] for each in kinds.values()) == len(changed)


def test_a_share_takes_the_least_rank_that_keeps_it(run, tmp_path):
    model = safe_models.base()
    weights = safe_models.weights_of(model)
    safe = safe_models.tuned(weights, safe_models.cross)
    how = Extraction(keep=0.8, precision="fp32")
    made = run(safe, how, model)
    patched = applied(model, tmp_path / "share.safetensors")
    total = lost = 0.0
    for key in filter(safe_models.cross, safe):
        change = (safe[key] - weights[key]).double()
        left = (safe[key] - effective(patched, key)).double()
        total, lost = total + change.square().sum(), lost + left.square().sum()
        if change.ndim > 1:
            shares = torch.linalg.svdvals(change).square().cumsum(0) / change.square().sum()
            rank = int((shares < 0.8).sum()) + 1
            kept = 1.0 - left.square().sum() / change.square().sum()
            assert kept.item() == pytest.approx(shares[rank - 1].item(), abs=1e-5)
    assert made.report["kept"] == pytest.approx(1.0 - (lost / total).item(), abs=1e-5)


def test_more_rank_keeps_more_in_weights_and_in_function(run):
    model = safe_models.base()
    safe = safe_models.tuned(safe_models.weights_of(model), safe_models.cross)
    reports = [run(safe, how, model).report for how in (Extraction(form="rank", rank=1), FULL)]
    low, full = reports
    assert low["kept"] < 0.8 < full["kept"]
    assert low["function"]["retained"] < 0.9 < full["function"]["retained"]
    assert any("Keep a larger share" in line for line in warnings(low)) and not warnings(full)
    assert "| cross-attention |" in in_words({"name": "x", **low})


def test_it_is_sealed_with_what_a_safety_lora_needs(run):
    model = safe_models.base()
    made = run(safe_models.tuned(safe_models.weights_of(model), safe_models.cross), model=model)
    assert made.module.prompts == ["nude person", "naked"]
    assert made.module.held_out == ["undressed"] and made.module.sealed_strength == 1.0
    about = made.module.metadata
    assert about["msl.method"] == "extracted" and about["msl.base"] == "SD15"
    assert '"kept": 1.0' in about["msl.extraction"] and "msl.moments" in about


@pytest.mark.parametrize("held", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_what_rounding_alone_changes_is_no_difference(run, held):
    """A safe model in fp32 against a base in less: the layers that were not trained are equal."""
    whole = safe_models.weights_of(safe_models.base())
    safe = safe_models.tuned(whole, safe_models.cross)
    made = run(safe, model=safe_models.base(held=held))
    assert made.report["weights"]["changed"] == sum(map(safe_models.cross, safe))
    assert made.report["noisy"] == 0
    assert made.report["function"]["retained"] == pytest.approx(1.0, abs=0.01)


def test_a_change_as_small_as_rounding_is_warned_of(run):
    whole = safe_models.weights_of(safe_models.base())
    safe = safe_models.tuned(whole, safe_models.cross, size=5e-4)
    made = run(safe, model=safe_models.base(held=torch.bfloat16))
    assert made.report["noisy"] > 0 and made.report["rounding"] > 0.5
    assert any("rounding" in line for line in warnings(made.report))
    exact = run(safe, Extraction(form="rank", rank=4))
    assert exact.report["noisy"] == 0


def test_equal_models_are_refused(run):
    with pytest.raises(ModuleFileError, match=r"nothing differs from the base in \d+ weights"):
        run(safe_models.weights_of(safe_models.base()))


def test_a_cancelled_extraction_leaves_nothing(run, tmp_path):
    safe = safe_models.tuned(safe_models.weights_of(safe_models.base()), safe_models.cross)
    seen = []

    def cancel(done: int, total: int) -> None:
        seen.append((done, total))
        if done > total - 40:  # while it is measured
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(safe, progress=cancel)
    assert [path.name for path in tmp_path.iterdir()] == ["safe.safetensors"]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({total for _, total in seen}) == 1


def test_the_table_of_what_is_kept_is_of_its_results():
    """Every family, held either way, in every form; all of it is kept in full."""
    rows = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    assert benchmark.TABLE.read_text(encoding="utf-8") == benchmark.as_table(rows)
    kept = [(each, form) for row in rows.values() for each in row.values() for form in each]
    assert len(kept) == len(benchmark.FAMILIES) * len(benchmark.HELD) * len(benchmark.FORMS)
    assert all(
        0.98 < share <= 1.0001 for each, form in kept if form == "full" for share in each[form]
    )
