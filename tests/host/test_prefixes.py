"""Embeddings before a prompt: what ComfyUI makes of `embedding:NAME prompt`, with gradients."""

import pytest
import small_clips
import torch
from comfy import sd1_clip
from modular_safety_lora.host.gradients import kept
from modular_safety_lora.host.prefixes import (
    PrefixError,
    check_read,
    embeddings_in,
    encoders_of,
    unread,
    vocabulary,
    with_prefix,
)
from safetensors.torch import save_file

LONG = "a red car in the rain, " * 14  # of more tokens than a text encoder takes at once


@pytest.fixture(scope="module", params=small_clips.SHAPES)
def clip(request):
    return small_clips.clip(*small_clips.SHAPES[request.param][:3])


def drawn(clip, count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        name: 0.02 * torch.randn(count, vocabulary(each).shape[1], generator=generator)
        for name, each in encoders_of(clip).items()
    }


@pytest.mark.parametrize("text", ["a cat", "a (red:1.3) car, [old]", "", LONG])
def test_a_prefix_is_what_the_host_reads_from_an_embeddings_file(clip, tmp_path, text):
    prefix = drawn(clip)
    save_file(prefix, tmp_path / "found-1.safetensors")
    named = f"embedding:found-1 {text}"
    with embeddings_in(clip, tmp_path):
        expected = clip.encode_from_tokens_scheduled(clip.tokenize(named))
        check_read(clip, named, text, 3)
    [(tokens, told)] = with_prefix(clip, text, prefix)
    assert torch.equal(tokens, expected[0][0])
    assert torch.equal(told["pooled_output"], expected[0][1]["pooled_output"])
    plain = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    assert not torch.equal(tokens[:, :77], plain[0][0][:, :77])


@pytest.mark.parametrize("several", [False, True])
def test_a_prompt_names_the_users_own_embeddings_too(clip, tmp_path, monkeypatch, several):
    found, own = tmp_path / "found", str(tmp_path / "own")
    for folder, name, count in ((found, "found-1", 3), (tmp_path / "own", "mine", 2)):
        folder.mkdir()
        save_file(drawn(clip, count), folder / f"{name}.safetensors")
    for part in parts(clip):
        monkeypatch.setattr(part, "embedding_directory", [own] if several else own)
    told = "a cat, embedding:mine asleep"
    expected = with_prefix(clip, told, drawn(clip))
    named = f"embedding:found-1 {told}"
    with embeddings_in(clip, found):
        read = clip.encode_from_tokens_scheduled(clip.tokenize(named))
        check_read(clip, named, told, 3)
    assert torch.equal(read[0][0], expected[0][0])
    with pytest.raises(PrefixError, match="reads 0 of 3"):
        check_read(clip, named, told, 3)


def test_gradients_reach_the_prefix_of_every_encoder(clip):
    prefix = {name: each.requires_grad_() for name, each in drawn(clip).items()}
    with kept(True):  # CLIP writes over what gradients need
        [(tokens, _)] = with_prefix(clip, "a cat", prefix)
        slopes = torch.autograd.grad(tokens.square().sum(), list(prefix.values()))
    assert all(each.abs().amax(dim=1).min() > 0 for each in slopes)


def test_an_embedding_that_the_host_would_leave_out_is_an_error(clip, tmp_path):
    own = [part.embedding_directory for part in parts(clip)]
    with pytest.raises(PrefixError, match="reads 0 of 3"), embeddings_in(clip, tmp_path):
        check_read(clip, "embedding:gone a cat", "a cat", 3)
    assert [part.embedding_directory for part in parts(clip)] == own, "the folders are given back"


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("a cat, (embedding:mine:1.2)", ""),
        (r"(embedding:mine, \(old\), embedding:mine\(2\):1.2) embedding:mine, a cat", ""),
        ("embedding:mine:1.2 a cat", "embedding:mine:1.2"),
        ("a cat,embedding:mine", "cat,embedding:mine"),
        ("(embedding:mine a cat", "(embedding:mine"),
        ("a cat embedding: mine, (embedding: gone:1.2)", "embedding: gone"),
        ("embedding:mine embedding:wide", "embedding:wide"),
    ],
)
def test_what_the_host_spells_or_leaves_out_is_unread(clip, tmp_path, text, lost):
    for name, wide in (("mine", 0), ("mine(2)", 0), ("wide", 1)):
        tensors = {each: torch.zeros(2, row.shape[1] + wide) for each, row in drawn(clip).items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    with embeddings_in(clip, tmp_path):
        assert unread(clip, text) == [lost] * bool(lost)
        if lost:
            told = clip.encode_from_tokens_scheduled(clip.tokenize(text))
            there = text.replace(lost, "embedding:mine")
            read = clip.encode_from_tokens_scheduled(clip.tokenize(there))
            assert not torch.equal(told[0][0], read[0][0])


def parts(clip) -> list:
    return [each for each in vars(clip.tokenizer).values() if hasattr(each, "embedding_directory")]


def test_other_text_encoders_are_refused_by_name():
    other = small_clips.clip(sd1_clip.SD1Tokenizer, small_clips.OfT5, {"t5xxl": 64})
    with pytest.raises(PrefixError, match="reads text with t5xxl"):
        encoders_of(other)
