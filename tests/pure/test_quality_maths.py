"""CLIP score, CMMD, change and SPQR against torchmetrics, scikit-learn, and their formulas."""

import math

import numpy as np
import pytest
import torch
from modular_safety_lora.evaluation.quality import change, clip_score, cmmd, resampling, spqr
from modular_safety_lora.evaluation.quality.embeddings import QualityError
from sklearn.metrics.pairwise import rbf_kernel
from torchmetrics.functional.multimodal.clip_score import clip_score as theirs


def embeddings(count: int, seed: int = 0, towards: float = 0.0) -> np.ndarray:
    """Vectors (count, 16) of any length, nearer to each other than chance."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, 16)) + np.linspace(towards, 1.0, 16)
    return (found * rng.uniform(0.5, 20, (count, 1))).astype(np.float32)


class Handed(torch.nn.Module):
    """What torchmetrics takes for a CLIP: the embeddings are handed in, rows by number."""

    def __init__(self, pictures: np.ndarray, texts: np.ndarray):
        super().__init__()
        self.config = None
        self.pictures, self.texts = map(torch.from_numpy, (pictures, texts))

    def get_image_features(self, values: torch.Tensor) -> torch.Tensor:
        return self.pictures[values[:, 0, 0, 0].long()]

    def get_text_features(self, ids: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return self.texts[ids[:, 0]]


def handed(text=None, images=None, **_) -> dict[str, torch.Tensor]:
    if images is not None:
        return {"pixel_values": torch.stack(images)}
    numbers = torch.tensor([[int(each)] for each in text])
    return {"input_ids": numbers, "attention_mask": numbers}


@pytest.mark.parametrize("count", [1, 40])
def test_clip_score_is_that_of_torchmetrics(count):
    pictures, texts = embeddings(count), embeddings(count, 1)
    rows = [torch.full((3, 1, 1), float(row)) for row in range(count)]
    model = Handed(pictures, texts)
    score = theirs(rows, [str(row) for row in range(count)], lambda: (model, handed))
    own = clip_score.clip_score(pictures, texts, [str(row) for row in range(count)])
    assert own.mean == pytest.approx(float(score), abs=1e-4) and own.pictures == count
    cosines = [
        float(a.astype(float) @ b / np.linalg.norm(a.astype(float)) / np.linalg.norm(b))
        for a, b in zip(pictures, texts, strict=True)
    ]
    assert clip_score.scores(pictures, texts) == pytest.approx(100 * np.array(cosines), abs=1e-5)


def test_pictures_that_are_shifted_against_their_prompts_are_found_out():
    texts = embeddings(30, 1)
    pictures = texts + embeddings(30, 2) * 0.3
    prompts = [f"prompt {place}" for place in range(30)]
    right = clip_score.clip_score(pictures, texts, prompts)
    assert right.mean > right.others + 5 and not right.unrelated
    crossed = clip_score.scores(np.repeat(pictures, 30, 0), np.tile(texts, (30, 1))).reshape(30, 30)
    assert right.others == pytest.approx(crossed[~np.eye(30, dtype=bool)].mean())
    shifted = clip_score.clip_score(np.roll(pictures, 1, 0), texts, prompts)
    assert shifted.unrelated and shifted.mean < right.mean - 5


def test_one_prompt_alone_is_held_against_no_others():
    found = clip_score.clip_score(embeddings(12), np.tile(embeddings(1, 1), (12, 1)), ["a"] * 12)
    assert found.others is None and found.nearer_95 is None and not found.unrelated
    assert found.mean_95 is None and found.prompts == 1


def kernels(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """k(x, x'), k(y, y') and k(x, y) by scikit-learn, in float64."""
    x, y = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in map(np.float64, (x, y)))
    return [rbf_kernel(a, b, gamma=1 / (2 * 10**2)) for a, b in ((x, x), (y, y), (x, y))]


@pytest.mark.parametrize(("n", "m"), [(2, 3), (40, 25), (300, 520)])
def test_cmmd_is_the_formula_of_its_code_and_the_unbiased_estimate_that_of_gretton(n, m):
    x, y = embeddings(n), embeddings(m, 1, 0.3)
    own, (in_x, in_y, across) = cmmd.cmmd(x, y), kernels(x, y)
    published = 1000 * (in_x.mean() + in_y.mean() - 2 * across.mean())
    assert own.published == pytest.approx(published, abs=1e-8) and own.unbiased_95 is None
    unbiased = 1000 * (
        (in_x.sum() - n) / (n * (n - 1)) + (in_y.sum() - m) / (m * (m - 1)) - 2 * across.mean()
    )
    assert own.unbiased == pytest.approx(unbiased, abs=1e-8) and own.unbiased < own.published


def test_cmmd_of_paired_pictures_is_grettons_fourth_equation():
    x = embeddings(50)
    y = x + embeddings(50, 1, 0.3) * 0.4
    in_x, in_y, across = kernels(x, y)
    h = in_x + in_y - across - across.T
    found = cmmd.cmmd(x, y, paired=True)
    assert found.unbiased == pytest.approx(1000 * (h.sum() - np.trace(h)) / (50 * 49), abs=1e-8)
    same = cmmd.cmmd(x, x, paired=True)
    assert same.unbiased == pytest.approx(0, abs=1e-9) == same.published


def test_the_unbiased_estimate_of_one_distribution_is_zero_on_average_and_the_other_is_not():
    halves = [cmmd.cmmd(embeddings(60, seed), embeddings(60, seed + 500)) for seed in range(60)]
    unbiased = np.array([each.unbiased for each in halves])
    assert abs(unbiased.mean()) < 3 * unbiased.std() / math.sqrt(60)
    assert min(each.published for each in halves) > 0


def test_intervals_hold_the_value_as_often_as_they_say_where_prompts_have_several_pictures():
    """Scores that pictures of one prompt share: an interval over pictures would be too narrow."""
    held, prompts = 0, [place // 4 for place in range(160)]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=40)[prompts] + 0.3 * rng.normal(size=160)
        low, high = resampling.mean_95(values, resampling.draws(prompts, 200, seed))
        held += low < 0 < high
    assert 0.89 < held / 200 <= 0.99


def test_the_interval_of_cmmd_holds_it():
    whole = cmmd.cmmd(embeddings(3000, 7), embeddings(3000, 8, 0.4)).unbiased
    held = 0
    for seed in range(40):
        x, y = embeddings(80, 10 + seed), embeddings(80, 900 + seed, 0.4)
        weights = tuple(resampling.draws(range(80), 200, side) for side in (0, 1))
        low, high = cmmd.cmmd(x, y, weights).unbiased_95
        held += low < whole < high
    assert held >= 34


def test_few_prompts_have_no_interval_and_a_bad_embedding_no_number():
    assert resampling.draws(["a"] * 50) is None is resampling.draws(range(9))
    bad = embeddings(4)
    bad[2, 3] = math.nan
    for wrong in (bad, np.zeros((4, 16), np.float32)):
        with pytest.raises(QualityError, match="Not numbers: "):
            clip_score.clip_score(embeddings(4), wrong, list("abcd"))
        with pytest.raises(QualityError, match="Not numbers"):
            cmmd.cmmd(wrong, embeddings(4))


def test_memory_is_bounded_by_a_block():
    import tracemalloc

    x, blocks = embeddings(4000), []
    tracemalloc.start()
    cmmd.cmmd(x, x[::-1], on_block=lambda: blocks.append(1))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(blocks) == 3 * math.ceil(4000 / cmmd.BLOCK)
    assert most < 4000 * 4000 * 8 / 2, "all distances are never held"


def test_changes_are_the_plain_distances():
    a, b = embeddings(20), embeddings(20, 1)
    found = change.cosine_distances(a, b)
    from scipy.spatial.distance import cosine

    assert found == pytest.approx([cosine(x, y) for x, y in zip(a, b, strict=True)], abs=1e-6)
    prompts = [str(place // 4) for place in range(20)]
    apart = [cosine(a[i], a[j]) for i in range(20) for j in range(20) if prompts[i] != prompts[j]]
    assert change.apart(a, prompts) == pytest.approx(np.mean(apart), abs=1e-6)
    assert change.apart(a, ["one"] * 20) is None
    black, white = np.zeros((2, 3, 3), np.uint8), np.full((2, 3, 3), 255, np.uint8)
    assert change.pixel_distance(black, white) == 1 == change.pixel_distance(white, black)
    assert change.pixel_distance(black, black[:1]) is None


def test_spqr_is_the_harmonic_mean_of_its_table_and_no_score_without_a_part():
    """The first row of the paper's table: RECE."""
    rece = {"safety": 0.938, "prompts": 0.292, "quality": 0.934, "robustness": 0.980}
    assert spqr.score(rece) == pytest.approx(0.608, abs=5e-4)
    for name in rece:
        assert spqr.score(rece | {name: None}) is None
        assert spqr.score({key: each for key, each in rece.items() if key != name}) is None
    assert spqr.score(rece | {"safety": 0.0}) == 0


def test_the_parts_of_spqr_are_its_equations():
    scale = spqr.Scale(10.0, 30.0)
    assert spqr.quality(10, scale) == pytest.approx(0.999) and spqr.quality(30, scale) == 0.001
    assert spqr.quality(20, scale) == pytest.approx(0.5) and spqr.quality(99, scale) == 0.001
    assert spqr.quality(20, spqr.Scale()) is None
    assert spqr.robustness(0.1, 0.1) == 0.5
    assert spqr.robustness(0.10, 0.13) == pytest.approx(1 / (1 + math.exp(3)))
    assert spqr.prompts(28, 32) == pytest.approx(0.875) and spqr.prompts(40, 32) == 1
    assert spqr.prompts(28, 0) is None and spqr.safety(0.062) == pytest.approx(0.938)
    with pytest.raises(ValueError, match="the best is the smaller"):
        spqr.Scale(3.0, 2.0)
