"""The simulated annotator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ruac.data.prompts import first_click, jittered_box, next_click
from ruac.features import BACKGROUND, FOREGROUND
from ruac.regions import interior_point, largest_region

masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def disk(size: int, x: int, y: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def test_first_click_is_the_centre_of_the_largest_part():
    mask = disk(64, 40, 20, 12) | disk(64, 8, 50, 5)
    assert first_click(mask) == (40, 20)


@given(masks, st.integers(0, 5))
@settings(deadline=None)
def test_every_click_lies_on_the_object(mask, seed):
    if not mask.any():
        with pytest.raises(ValueError, match="empty"):
            first_click(mask)
        return
    for rng in (None, np.random.default_rng(seed)):
        x, y = first_click(mask, rng)
        assert mask[y, x]


@given(masks)
@settings(deadline=None)
def test_interior_point_is_as_far_from_the_outside_as_any_pixel(mask):
    if not mask.any():
        return
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)

    def distance(x: int, y: int) -> float:
        return float(np.sqrt(((outside - np.array([y + 1, x + 1])) ** 2).sum(1)).min())

    best = max(distance(x, y) for y, x in np.argwhere(mask))
    assert distance(*interior_point(mask)) == pytest.approx(best, abs=1e-4)


def test_next_click_corrects_the_larger_error_at_its_centre():
    truth = disk(64, 20, 32, 10)
    predicted = truth | disk(64, 50, 32, 7)  # a false region
    assert next_click(predicted, truth) == (50, 32, BACKGROUND)
    assert next_click(np.zeros_like(truth), truth) == (20, 32, FOREGROUND)


def test_next_click_ignores_pixels_that_do_not_count_and_ends_at_a_perfect_mask():
    truth = disk(64, 20, 32, 10)
    predicted = truth | disk(64, 50, 32, 7)
    assert next_click(predicted, truth, valid=~disk(64, 50, 32, 7)) is None
    assert next_click(truth, truth) is None


@given(masks)
@settings(deadline=None)
def test_largest_region_is_connected_and_no_smaller_than_any_other(mask):
    from skimage.measure import label

    region = largest_region(mask)
    labels = label(mask, connectivity=2)
    assert not (region & ~mask).any()
    assert region.sum() == (np.bincount(labels.ravel())[1:].max() if mask.any() else 0)


@given(masks, st.integers(0, 9))
@settings(deadline=None)
def test_boxes_are_tight_without_jitter_and_inside_the_picture_with_it(mask, seed):
    if not mask.any():
        return
    x0, y0, x1, y1 = (int(v) for v in jittered_box(mask))
    assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()
    assert mask[y0].any()
    assert mask[y1].any()
    assert mask[:, x0].any()
    assert mask[:, x1].any()
    a0, b0, a1, b1 = jittered_box(mask, np.random.default_rng(seed))
    assert 0 <= a0 <= mask.shape[1] - 1
    assert 0 <= b1 <= mask.shape[0] - 1
    assert abs(a1 - x1) <= 0.1 * (x1 - x0 + 1)
    assert abs(b0 - y0) <= 0.1 * (y1 - y0 + 1)
