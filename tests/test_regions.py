"""What the search for the next click needs of the geometry of masks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ruac.regions import depth, fewest, heaviest_region, region_around

WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0.125, 0.25, 0.5]))
MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(WEIGHTS, st.sampled_from([0.25, 0.5, 0.75, 1.0]))
@settings(max_examples=200)
def test_the_fewest_pixels_hold_the_share_and_without_the_lightest_of_them_do_not(weight: np.ndarray, share: float) -> None:
    chosen = fewest(weight, share)
    assert chosen.any()
    held, lightest = weight[chosen].sum(), weight[chosen].min()
    assert held >= share * weight.sum()
    assert not (weight[~chosen] >= lightest).any()
    # all are eighths: no rounding
    assert weight[weight > lightest].sum() < share * weight.sum() or not weight.any()


@given(MASKS, st.data())
@settings(max_examples=200)
def test_the_region_around_a_pixel_holds_it_and_all_neighbours_in_the_mask(mask: np.ndarray, data: st.DataObject) -> None:
    y, x = (data.draw(st.integers(0, side - 1)) for side in mask.shape)
    region = region_around(mask, x, y)
    assert region[y, x]
    if not mask[y, x]:
        assert region.sum() == 1
        return
    assert not (region & ~mask).any()
    for row, column in np.argwhere(region):
        near = np.s_[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        np.testing.assert_array_equal(region[near], mask[near])


def test_the_heaviest_region_is_not_the_largest() -> None:
    mask = np.zeros((5, 9), np.bool_)
    mask[1, 1:5] = True
    mask[3, 7] = True
    weight = np.where(mask, 1.0, 9.0)  # what is outside the mask weighs nothing
    weight[3, 7] = 5.0
    assert np.argwhere(heaviest_region(mask, weight)).tolist() == [[3, 7]]
    assert not heaviest_region(np.zeros_like(mask), weight).any()


def test_depth_counts_the_border_of_the_image_as_outside() -> None:
    np.testing.assert_allclose(depth(np.ones((3, 5), np.bool_)), [[1] * 5, [1, 2, 2, 2, 1], [1] * 5])
