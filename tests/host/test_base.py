"""The base of a verb: a checkpoint, or its parts in files of their own, is the same model."""

import argparse

import folder_paths
import pytest
import small_models
import torch
from modular_safety_lora.commands import interference
from modular_safety_lora.commands.base import add_base, load_base
from modular_safety_lora.lab import assets
from safetensors.torch import save_file

NAMES = ("diffusion", "text", "vae")


@pytest.fixture(scope="module")
def parts(models, tmp_path_factory):
    """The small checkpoint, split as the large models come."""
    folder = tmp_path_factory.mktemp("parts")
    small_models.split(models, folder, NAMES)
    return folder


def base(*words, **how):
    parser = argparse.ArgumentParser()
    add_base(parser, **how)
    return load_base(parser.parse_args([str(word) for word in words]))


def split(parts, *more):
    return small_models.in_parts(parts / f"{name}.safetensors" for name in NAMES) + list(more)


def test_parts_in_files_of_their_own_are_the_same_model(parts, models):
    whole = base("--checkpoint", models / "checkpoints" / assets.CHECKPOINT)
    apart = base(*split(parts))
    left, right = (each[0].model.diffusion_model.state_dict() for each in (whole, apart))
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    texts = [each[1].encode_from_tokens(each[1].tokenize("a cat")) for each in (whole, apart)]
    assert torch.equal(*texts)
    pictures = [each[2].decode(torch.zeros(1, 4, 4, 4)) for each in (whole, apart)]
    assert torch.equal(*pictures)


def test_prompts_find_the_embeddings_that_they_name(parts, models, tmp_path, monkeypatch):
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "embeddings", ([str(tmp_path)], {".safetensors"})
    )
    for words in (["--checkpoint", models / "checkpoints" / assets.CHECKPOINT], split(parts)):
        clip = base(*words)[1]
        width = clip.tokenizer.clip_l.embedding_size
        save_file({"clip_l": torch.ones(2, width)}, tmp_path / "mine.safetensors")
        [told] = clip.tokenize("embedding:mine a cat")["l"]
        assert [torch.is_tensor(each) for each, _ in told[1:4]] == [True, True, False]


def test_the_diffusion_model_is_held_as_asked(parts):
    model = base(*split(parts, "--weight-dtype", "float8_e4m3fn"))[0]
    assert model.model_dtype() == torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--diffusion-model", "{}/diffusion.safetensors"], "--text-encoder and --vae are needed"),
        (
            ["--checkpoint", "{}/text.safetensors", "--vae", "{}/vae.safetensors"],
            "text.safetensors has all parts: leave out",
        ),
        (
            ["--checkpoint", "{}/text.safetensors", "--weight-dtype", "float8_e5m2"],
            "text.safetensors has all parts: leave out",
        ),
        (
            ["--diffusion-model", "{}/none.safetensors", "--text-encoder", "a", "--vae", "b"],
            "none.safetensors: there is no such file",
        ),
    ],
)
def test_what_is_missing_is_said(parts, words, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        base(*(word.format(parts) for word in words))


def test_who_makes_no_picture_is_asked_for_no_vae(parts):
    words = split(parts)[:-2]
    parser = argparse.ArgumentParser()
    interference.options(parser)
    given = ["style.safetensors", "--safety-lora", "safety.safetensors", *words]
    model, clip, vae = load_base(parser.parse_args([str(word) for word in given]))
    assert model.model.diffusion_model and clip.tokenize("a cat") and vae is None
    with pytest.raises(ValueError, match="--text-encoder is needed"):
        base(*words[:2], vae=False)


def test_an_unknown_type_of_text_encoder_is_named_with_those_there_are(parts):
    with pytest.raises(ValueError, match="'z-image' is not a type of text encoder.*lumina2"):
        base(*split(parts, "--text-encoder-type", "z-image"))


def test_a_checkpoint_and_a_diffusion_model_are_not_both_taken(parts, capsys):
    for words in ([], ["--checkpoint", "a", "--diffusion-model", "b"]):
        with pytest.raises(SystemExit):
            base(*words)
    said = capsys.readouterr().err
    assert "--checkpoint --diffusion-model is required" in said and "not allowed with" in said
