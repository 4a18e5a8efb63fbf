import math
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import f1_score, jaccard_score

from ruac.evaluate.metrics import boundary_f, dice, iou, j_and_f, mask_quality
from ruac.regions import Mask, bounding_box, grow, outline

SMALL = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def mask_triples(draw: st.DrawFn) -> tuple[Mask, Mask, Mask]:
    shape = draw(SMALL)
    return tuple(draw(arrays(np.bool_, shape)) for _ in range(3))  # type: ignore[return-value]


def outline_by_loops(mask: Mask) -> Mask:
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edge[y, x] = any(mask[y, x] != mask[i, j] for i, j in neighbours if i < height and j < width)
    return edge


def boundary_f_by_loops(predicted: Mask, truth: Mask, tolerance: int) -> float:
    found, wanted = (np.argwhere(outline_by_loops(mask)) for mask in (predicted, truth))
    if not len(found) or not len(wanted):
        return float(len(found) == len(wanted))
    near = np.hypot(*np.moveaxis(found[:, None] - wanted[None], -1, 0)) <= tolerance
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(mask_triples())
def test_overlap_agrees_with_scikit_learn_on_the_valid_pixels(masks: tuple[Mask, Mask, Mask]) -> None:
    predicted, truth, valid = masks
    truth[0, 0] = valid[0, 0] = True  # an empty truth is a convention, tested apart
    assert iou(predicted, truth, valid) == pytest.approx(jaccard_score(truth[valid], predicted[valid]), abs=1e-12)
    assert dice(predicted, truth, valid) == pytest.approx(f1_score(truth[valid], predicted[valid]), abs=1e-12)


def test_iou_agrees_with_coco() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        predicted, truth = rng.random((2, 31, 17)) < rng.random()
        codes = [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in (predicted, truth)]
        assert iou(predicted, truth) == pytest.approx(np.asarray(coco.iou(codes[:1], codes[1:], [0])).item(), abs=1e-12)


@given(mask_triples())
def test_outline_agrees_with_plain_loops(masks: tuple[Mask, Mask, Mask]) -> None:
    np.testing.assert_array_equal(outline(masks[0]), outline_by_loops(masks[0]))


@given(mask_triples())
def test_boundary_f_agrees_with_the_nearest_boundary_pixel(masks: tuple[Mask, Mask, Mask]) -> None:
    predicted, truth, valid = masks
    assert boundary_f(predicted, truth, valid) == pytest.approx(
        boundary_f_by_loops(predicted & valid, truth & valid, 1), abs=1e-12
    )


@pytest.mark.parametrize("diagonal", [100, 400, 2200])
def test_boundary_f_tolerates_the_share_of_the_diagonal_that_davis_does(diagonal: int) -> None:
    side = round(diagonal / math.sqrt(2))
    tolerance = math.ceil(0.008 * math.hypot(side, side))
    truth = np.zeros((side, side), bool)
    truth[: side // 2] = True
    for shift, expected in ((tolerance, 1.0), (tolerance + 1, 0.0)):
        predicted = np.zeros_like(truth)
        predicted[: side // 2 + shift] = True
        assert boundary_f(predicted, truth) == expected


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_boundary_f_agrees_with_loops_on_blobs_of_a_larger_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:90, :95]
    predicted, truth = (
        np.hypot(rows - y, (columns - x) * squeeze) < radius
        for x, y, radius, squeeze in rng.uniform((0, 0, 1, 0.5), (95, 90, 30, 2), (2, 4))
    )
    predicted |= truth & (rng.random(truth.shape) < 0.9)
    assert boundary_f(predicted, truth) == pytest.approx(boundary_f_by_loops(predicted, truth, 2), abs=1e-12)


@given(mask_triples(), st.floats(0, 25))
def test_grow_takes_every_pixel_within_the_radius(masks: tuple[Mask, Mask, Mask], radius: float) -> None:
    mask = masks[0]
    places = np.argwhere(mask)
    cells = np.argwhere(np.ones_like(mask))
    squared = ((cells[:, None] - places[None]) ** 2).sum(-1).min(1, initial=10**9)
    # the radius itself may round either way
    clear = abs(np.sqrt(squared) - radius) > 1e-3
    expected = squared <= radius**2
    np.testing.assert_array_equal(grow(mask, radius).ravel()[clear], expected[clear])


@pytest.mark.parametrize("radius", [5, 13, 20, 25])
def test_grow_includes_the_radius_itself_with_either_way_to_compute_it(radius: int) -> None:
    mask = np.zeros((61, 61), bool)
    mask[30, 30] = True
    rows, columns = np.mgrid[-30:31, -30:31]
    np.testing.assert_array_equal(grow(mask, radius), rows**2 + columns**2 <= radius**2)


@given(mask_triples())
def test_bounding_box_holds_the_mask_and_nothing_more(masks: tuple[Mask, Mask, Mask]) -> None:
    box = bounding_box(masks[0])
    cut = masks[0][box]
    assert cut.sum() == masks[0].sum()
    if masks[0].any():
        assert all(side.any() for side in (cut[0], cut[-1], cut[:, 0], cut[:, -1]))
    else:
        assert cut.size == 0


def test_two_empty_masks_are_perfect_and_one_empty_mask_is_worthless() -> None:
    empty, square = np.zeros((2, 20, 20), bool)
    square[5:9, 5:9] = True
    both = mask_quality(empty, empty)
    assert (both.iou, both.dice, both.boundary_f) == (1, 1, 1)
    for pair in ((empty, square), (square, empty)):
        one = mask_quality(*pair)
        assert (one.iou, one.dice, one.boundary_f) == (0, 0, 0)


def test_j_and_f_is_the_mean_of_iou_and_boundary_f() -> None:
    truth, predicted = np.zeros((2, 60, 60), bool)
    truth[10:40, 10:40] = True
    predicted[10:40, 10:50] = True
    assert iou(predicted, truth) == 0.75
    assert j_and_f(predicted, truth) == (0.75 + boundary_f(predicted, truth)) / 2
    assert 0.5 < boundary_f(predicted, truth) < 1


@pytest.mark.real_data
def test_j_and_f_is_that_of_davis_on_frames_of_video(real_data: Path) -> None:
    """A frame's mask as the answer for the next one. F by its definition: outline pixels within a disk of 0.8 % of the diagonal."""
    compared = 0
    for clip in sorted(path for path in (real_data / "video").iterdir() if path.is_dir()):
        ids = [np.asarray(Image.open(path)) for path in sorted((clip / "masks").glob("*.png"))[:4]]
        for before, after in pairwise(ids):
            for name in sorted(set(after.ravel().tolist()) - {0, 255}):
                predicted, truth = before == name, after == name
                tolerance = math.ceil(0.008 * math.hypot(*truth.shape))
                found, wanted = edges_by_shifting(predicted), edges_by_shifting(truth)
                precision = (distance_transform_edt(~wanted) <= tolerance)[found].mean()
                recall = (distance_transform_edt(~found) <= tolerance)[wanted].mean()
                f = 2 * precision * recall / (precision + recall)
                j = jaccard_score(truth.ravel(), predicted.ravel())
                assert boundary_f(predicted, truth) == pytest.approx(f, abs=1e-9)
                assert iou(predicted, truth) == pytest.approx(j, abs=1e-9)
                assert j_and_f(predicted, truth) == pytest.approx((j + f) / 2, abs=1e-9)
                compared += 1
    assert compared >= 20


def edges_by_shifting(mask: Mask) -> Mask:
    """Pixels that differ from the one to the right, below, or to the right and below."""
    grown = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != grown[:-1, 1:]) | (mask != grown[1:, :-1]) | (mask != grown[1:, 1:])


@given(mask_triples())
def test_what_is_predicted_on_ignored_pixels_changes_nothing(masks: tuple[Mask, Mask, Mask]) -> None:
    predicted, truth, valid = masks
    assert mask_quality(predicted, truth, valid) == mask_quality(predicted | ~valid, truth & valid, valid)


def test_masks_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"different sizes: \(4, 5\), \(5, 4\)"):
        mask_quality(np.zeros((4, 5), bool), np.zeros((5, 4), bool))
    with pytest.raises(ValueError, match="different sizes"):
        mask_quality(np.zeros((4, 5), bool), np.zeros((4, 5), bool), np.zeros((4, 4), bool))


def test_sixty_objects_of_an_image_take_well_under_a_second() -> None:
    rows, columns = np.mgrid[:512, :512]
    truth, predicted = (np.hypot(rows - y, columns - 200) < 25 for y in (200, 203))
    start = time.process_time()
    for _ in range(60):
        mask_quality(predicted, truth)
    assert time.process_time() - start < 1
