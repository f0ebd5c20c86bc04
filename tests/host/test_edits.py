"""The LoRA that holds a formula's change: exact at any rank, and what it says of itself."""

import pytest
import torch
from modular_safety_lora.lab import zoo
from modular_safety_lora.training.engine.edits import edits_of, metadata_of, told_of
from modular_safety_lora.training.engine.groups import Group, weight_of
from modular_safety_lora.training.objectives.closed_form import Sums

WIDE, TALL = "txt_in", "vector_in.in_layer"  # of Flux, whose text has 64 numbers


def group_of(layer: str, filled: torch.Tensor) -> Group:
    size = int(filled.sum())
    nothing = torch.zeros(size, size, dtype=torch.float64)
    return Group([layer], Sums(*[nothing] * 5, prompts=1), filled)


@pytest.mark.parametrize("rank", [1, 5, 40])
def test_a_change_is_held_exactly_by_the_rank_that_it_has(rank):
    """Of 40 of 60 numbers no two factors are shorter than the change itself: it is one of them."""
    model, filled = zoo.build("Flux", torch.bfloat16), torch.arange(64) % 16 > 0
    draw = torch.Generator().manual_seed(1)
    up, down = (torch.randn(60, rank, generator=draw, dtype=torch.float64) for _ in range(2))
    moved = 0.1 * up @ down.T / rank
    groups = [group_of(layer, filled) for layer in (WIDE, TALL)]
    edits = edits_of(model, groups, [torch.eye(60, dtype=torch.float64) + moved] * 2)
    for edit in edits:
        expected = torch.zeros_like(weight_of(model, edit.layer))
        expected[:, filled] = weight_of(model, edit.layer)[:, filled] @ moved.float()
        tensors = edit.tensors()
        name = f"diffusion_model.{edit.layer}"
        found = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
        assert (found - expected).norm() < 2e-3 * expected.norm()
        assert tensors[f"{name}.alpha"] == edit.rank == (rank if rank < 40 else 60)
        assert not tensors[f"{name}.lora_A.weight"][:, ~filled].any()
    told = told_of(edits)
    assert told["kept"] > 0.99999 and told["ranks"] == [edits[0].rank] * 3
    assert metadata_of(edits)["ss_network_dim"] == str(edits[0].rank)


def test_what_is_not_finite_or_nothing_is_no_change():
    model, filled = zoo.build("Flux"), torch.ones(64, dtype=torch.bool)
    groups, one = [group_of(WIDE, filled)], torch.eye(64, dtype=torch.float64)
    with pytest.raises(ValueError, match="changes nothing"):
        edits_of(model, groups, [one])
    with pytest.raises(ValueError, match="no finite solution"):
        edits_of(model, groups, [one * float("nan")])
