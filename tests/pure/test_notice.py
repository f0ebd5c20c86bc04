"""The notice in a withheld picture's place: any size, always the same; words where they fit."""

import numpy as np
import pytest
from modular_safety_lora.drawing.notice import GROUND, UNKNOWN, notice

LIGHT = np.array([int(GROUND[at : at + 2], 16) for at in (1, 3, 5)])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 8), (16, 300), (300, 16), (2048, 512)])
def test_it_has_the_pictures_size(width, height):
    found = notice(width, height)
    assert found.shape == (height, width, 3) and found.dtype == np.uint8
    assert (found[0, 0] == LIGHT).all() or width == 1


def test_it_is_the_same_each_time_and_nobody_changes_it():
    first = np.array(notice(200, 100))
    notice.cache_clear()
    assert np.array_equal(first, notice(200, 100))
    with pytest.raises(ValueError, match="read-only"):
        notice(200, 100)[0, 0] = 0


@pytest.mark.parametrize("side", [32, 64, 128, 256, 1024])
def test_something_dark_stands_in_its_middle(side):
    found = notice(side, side)
    assert found.min() < 110 and 0.01 < (found.min(axis=2) < 150).mean() < 0.2


def test_words_come_where_there_is_room():
    below = [
        (notice(side, side)[int(side * 0.7) :].min(axis=2) < 200).any() for side in (48, 128, 512)
    ]
    assert below == [False, True, True]
    assert not np.array_equal(notice(512, 512), notice(512, 512, UNKNOWN))
