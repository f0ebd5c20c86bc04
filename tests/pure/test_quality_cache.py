"""Embeddings that are kept: what two measures write at once, and a file that can't be used."""

import numpy as np
import pytest
from modular_safety_lora.evaluation.quality.cache import FILE, cached
from modular_safety_lora.evaluation.quality.embeddings import QualityError

VECTOR = np.arange(4, dtype=np.float32)


def test_two_measures_keep_embeddings_in_one_file_by_turns(tmp_path):
    with cached(tmp_path) as one, cached(tmp_path) as other:
        for turn, cache in enumerate((one, other, one)):
            cache.database.execute("pragma busy_timeout = 50")
            cache.put("model", str(turn), VECTOR + turn)
        for turn in range(3):
            assert np.array_equal(other.get("model", str(turn)), VECTOR + turn)


def test_a_fault_of_the_disk_is_told_as_one_and_a_damaged_file_with_its_way_out(tmp_path):
    full = pytest.raises(QualityError, match=f"{FILE}: the disk is full. Make room")
    with full, cached(tmp_path) as cache:
        cache.put("model", "a", VECTOR)
        cache.database.execute("pragma max_page_count = 1")  # no more than there is
        cache.put("model", "b", np.zeros(1_000_000))
    with cached(tmp_path) as cache:
        assert np.array_equal(cache.get("model", "a"), VECTOR)
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    damaged = pytest.raises(QualityError, match=r"can't be used. Delete this file.*not a database")
    with damaged, cached(tmp_path):
        pass
