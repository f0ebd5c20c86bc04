"""The small world's base: what is shipped becomes a checkpoint that ComfyUI's own loader reads."""

import numpy as np
import pytest
import torch
from comfy.taesd.taesd import TAESD
from modular_safety_lora.emoji import checkpoint, packing
from modular_safety_lora.emoji import network as sizes
from modular_safety_lora.emoji import text as encoder
from modular_safety_lora.host.comfyui import load_checkpoint
from modular_safety_lora.lab.world import (
    autoencoder,
    classifiers,
    network,
    pretrain,
    resumable,
    sets,
    sheet,
    shipping,
    text,
    weapons,
)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.long]


@pytest.fixture(scope="module")
def untrained() -> tuple[dict, dict]:
    """Weights of the network and of the autoencoder that know nothing, but are not zero."""
    torch.manual_seed(1)
    found = network.bare().state_dict()
    found = {name: value + 0.02 * torch.randn_like(value) for name, value in found.items()}
    return found | {"pos_embed": sizes.places()}, autoencoder.bare().state_dict()


@pytest.fixture(scope="module")
def loaded(untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    shipping.ship(*untrained, folder / "base.safetensors")
    checkpoint.write(folder / "world.safetensors", folder / "base.safetensors")
    return load_checkpoint(folder / "world.safetensors")


def test_packed_weights_are_off_by_half_a_step_at_most():
    weights = {"a.weight": torch.randn(64, 64) * torch.rand(64, 1), "a.bias": torch.randn(64)}
    shipped = packing.packed(weights)
    assert shipped["a.weight"].dtype == torch.int8 and shipped["a.bias"].dtype == torch.float16
    back = packing.unpacked(shipped)
    assert back.keys() == weights.keys()
    step = weights["a.weight"].abs().amax(dim=1, keepdim=True) / 127
    assert ((back["a.weight"] - weights["a.weight"]).abs() <= 0.501 * step).all()
    # a row of zeros has no scale of its own
    assert not packing.unpacked(packing.packed({"z": torch.zeros(64, 64)}))["z"].any()


def test_the_stock_loader_makes_the_network_that_was_trained(untrained, loaded):
    model = loaded[0].model
    assert type(model).__name__ == "SD3" and model.latent_format.latent_channels == 16
    trained = network.bare()
    trained.load_state_dict(untrained[0])
    draw = torch.Generator().manual_seed(2)
    noisy, tokens = (
        torch.randn(shape, generator=draw) for shape in ((2, 16, 12, 12), (2, 77, 768))
    )
    pooled, at = torch.randn(2, 768, generator=draw), torch.tensor([900.0, 100.0])
    wide = torch.nn.functional.pad(tokens, (0, sizes.TEXT - sizes.READ))
    told = torch.nn.functional.pad(pooled, (0, sizes.POOLED - sizes.READ))
    with torch.no_grad():
        expected = trained(noisy, at, tokens, pooled)
        found = model.diffusion_model.float()(noisy, at, context=wide, y=told)
    # the shipped weights are rounded
    assert (found - expected).norm() < 0.03 * expected.norm()


def test_the_stock_text_encoder_says_what_the_network_was_trained_with(loaded):
    words = "crossed swords weapon, noto"
    tokens, pooled = loaded[1].encode_from_tokens(loaded[1].tokenize(words), return_pooled=True)
    expected = text.encode([words])[words]
    assert torch.equal(tokens[0, :, : encoder.WIDTH].float(), expected[0])
    assert torch.equal(pooled[0, : encoder.WIDTH].float(), expected[1])
    assert not tokens[..., encoder.WIDTH :].any() and not pooled[..., encoder.WIDTH :].any()


def test_words_that_prompts_share_stay_alike_and_others_do_not():
    """What a model can learn from: the seeded text encoder keeps the words apart."""
    one, same, other = text.encode(["dog, noto", "dog, blob", "cat, noto"]).values()
    alike = torch.nn.functional.cosine_similarity
    assert alike(one[0][1], same[0][1], dim=0) > 0.99  # the name, which comes first
    assert alike(one[0][1], other[0][1], dim=0) < 0.4
    assert alike(one[0][3], other[0][3], dim=0) > 0.9  # the style, after another name
    assert alike(one[0][3], same[0][3], dim=0) < 0.4


def test_blocks_that_are_left_out_are_zeros_in_the_hosts_autoencoder(untrained):
    bare = autoencoder.bare().eval()
    bare.load_state_dict(untrained[1])
    whole = TAESD(latent_channels=autoencoder.CHANNELS)
    whole.load_state_dict(autoencoder.whole(untrained[1]))
    seen = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        latents = bare.taesd_encoder(seen)
        torch.testing.assert_close(whole.taesd_encoder(seen), latents)
        torch.testing.assert_close(whole.taesd_decoder(latents), bare.taesd_decoder(latents))


def autoencoded(**more):
    seen = np.random.default_rng(0).integers(0, 255, (4, 48, 48, 3), dtype=np.uint8)
    return autoencoder.train(seen, 3, batch=2, **more).state_dict()


def based(**more):
    settings = pretrain.Pretraining(steps=3, warm=1, batch=2, variants=1)
    latents = {("cat", "noto"): torch.ones(1, 16, 4, 4), ("axe", "flat"): torch.zeros(1, 16, 4, 4)}
    said = pretrain.all_captions()
    texts = {each: (torch.full((5, 768), len(each) / 9), torch.zeros(768)) for each in said}
    return pretrain.train(latents, texts, settings, **more)


@pytest.mark.parametrize("train", [autoencoded, based])
def test_training_that_was_stopped_goes_on_as_if_it_had_not_been(train, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable.Kept.save, "__defaults__", (1,))
    whole = train()

    def stop(step: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    state = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(report=stop, state=state)
    again = train(state=state)
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_a_sheet_shows_what_the_model_draws(loaded):
    drawn = sheet.of_model(loaded, ["cat", "pistol"], ["noto"])
    assert drawn.size == (sheet.LEFT + 2 * sets.SIDE, sheet.TOP + sets.SIDE)
    cells = np.asarray(drawn)[sheet.TOP :, sheet.LEFT :].reshape(sets.SIDE, 2, sets.SIDE, 3)
    assert not np.array_equal(cells[:, 0], cells[:, 1])


def test_the_detectors_lessons_draw_weapons_more_often_and_name_the_rest(untrained):
    drawn = np.random.default_rng(0).integers(0, 255, (7, 96, 96, 3), dtype=np.uint8)
    named = {"noto": {"axe": drawn[0], "cat": drawn[1]}}
    sketches_ = {"lucide": {"axe": drawn[2]}, "tabler": {"axe": drawn[3]}}
    seen, targets, odds = weapons.lessons((named, sketches_, {}), drawn[3:])
    order = weapons.labels()
    rest = [weapons.OTHER] * 3  # the axe among them is no lesson of something else
    assert [order[each] for each in targets] == ["axe", "cat", "axe", "axe", *rest]
    assert seen.shape == (7, 3, 64, 64) and torch.equal(targets[:1], targets[2:3])
    axe, cat, others = odds[[0, 2, 3]], odds[1].item(), odds[4:]
    assert axe.sum().item() == pytest.approx(3 * cat)
    # an emoji is shown three times as often as all drawings of one colour together
    assert axe[0].item() == pytest.approx(3 * axe[1:].sum().item())
    assert others.sum().item() == pytest.approx(odds.sum().item() / 4)
    vae = autoencoder.bare().eval()
    vae.load_state_dict(untrained[1])
    soft = weapons.softened(named, vae)["noto, soft"]
    assert soft.keys() == named["noto"].keys() and soft["axe"].shape == drawn[0].shape
    again = classifiers.disturbed(seen, torch.Generator().manual_seed(0))
    assert again.shape == seen.shape and again.min() >= 0 and again.max() <= 1
    assert torch.equal(again, classifiers.disturbed(seen, torch.Generator().manual_seed(0)))
