import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from ruac.data.folder import object_ids, read_mask
from ruac.evaluate.disagreement import (
    SIZES,
    STEPS,
    DisagreementHistogram,
    People,
    annotator_files,
    disagreement_histograms,
    people_disagree,
    read_people,
)
from ruac.evaluate.error_detection import LOGIT_RANGE


def square(size: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[rows, columns] = True
    return mask


def test_the_minority_is_counted_pixel_by_pixel() -> None:
    truth = square(10, slice(2, 8), slice(2, 8))
    larger, smaller = square(10, slice(2, 8), slice(2, 9)), square(10, slice(2, 8), slice(2, 7))
    found = people_disagree(People.of(np.stack([truth, larger, smaller, truth]).astype(np.uint8)), truth)
    assert found is not None
    expected = np.zeros((10, 10))
    expected[2:8, 8] = 0.25  # one of four includes it
    expected[2:8, 7] = 0.25  # one of four leaves it out
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_regions_more_than_half_inside_make_up_a_persons_mask() -> None:
    truth = square(10, slice(0, 10), slice(0, 6))
    cut = np.zeros((10, 10), np.uint8)
    cut[:, :2], cut[:, 2:5], cut[:, 5:7], cut[:, 7:] = 7, 0, 200, 3
    # region 200 lies half inside, so it does not belong; region 0 is a region like others
    found = people_disagree(People.of(np.stack([truth.astype(np.uint8), truth.astype(np.uint8), cut])), truth)
    assert found is not None
    np.testing.assert_allclose(found, square(10, slice(0, 10), slice(5, 6)) / 3, atol=1e-7)


def test_who_made_the_object_a_part_of_something_larger_does_not_count() -> None:
    truth = square(10, slice(2, 5), slice(2, 5))
    coarse = square(10, slice(0, 10), slice(0, 6))
    agreeing = [truth, truth, truth]
    found = people_disagree(People.of(np.stack([*agreeing, coarse]).astype(np.uint8)), truth)
    assert found is not None
    assert found.max() == 0
    assert people_disagree(People.of(np.stack([truth, truth, coarse, coarse]).astype(np.uint8)), truth) is None


def test_who_kept_less_than_half_of_the_object_does_not_count() -> None:
    truth = square(10, slice(0, 10), slice(0, 10))
    named, not_named = square(10, slice(0, 10), slice(0, 5)), square(10, slice(0, 10), slice(0, 4))
    for fragment, people in ((named, 3), (not_named, 2)):
        # what is outside the fragment is cut into pieces that a larger picture would hold most of
        canvas = np.zeros((30, 10), np.uint8)
        canvas[:10] = np.where(fragment, 1, 2)
        canvas[10:] = 2
        whole = np.zeros((30, 10), np.uint8)
        whole[:10] = 1
        found = people_disagree(People.of(np.stack([whole, whole, canvas])), np.vstack([truth, np.zeros((20, 10), bool)]))
        assert (found is not None) == (people == 3)


def pixels(seed: int, shape: tuple[int, int] = (60, 70)) -> tuple[np.ndarray, np.ndarray]:
    """Logits and disagreements of five people that have something to do with each other."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 3, shape)
    people = rng.random((5, *shape)) < 1 / (1 + np.exp(-logit))
    share = people.mean(0)
    return logit, np.minimum(share, 1 - share).astype(np.float32)


def centred(logit: np.ndarray) -> np.ndarray:
    width = LOGIT_RANGE / SIZES
    return np.sign(logit) * (np.floor(np.minimum(np.abs(logit), LOGIT_RANGE - width) / width) + 0.5) * width


def test_correlations_are_scipys_in_the_image_and_in_the_band() -> None:
    logit, disagreement = pixels(0)
    rng = np.random.default_rng(1)
    valid, band = rng.random(logit.shape) < 0.8, rng.random(logit.shape) < 0.3
    logit = centred(logit)
    found = disagreement_histograms(*(torch.from_numpy(values) for values in (logit, disagreement, valid, band)))
    for histogram, region in ((found.image, valid), (found.band, valid & band)):
        doubt, minority = 1 / (1 + np.exp(np.abs(logit[region]))), disagreement[region]
        result = histogram.read()
        assert result.pixels == region.sum()
        assert result.spearman == pytest.approx(float(np.asarray(spearmanr(doubt, minority))[0]), abs=1e-9)
        assert result.pearson == pytest.approx(float(pearsonr(doubt, minority)[0]), abs=1e-6)
        assert result.spearman > 0.3


def test_smooth_logits_are_binned_to_within_the_stated_error() -> None:
    logit, disagreement = pixels(2, (400, 400))
    everywhere = torch.ones(logit.shape, dtype=torch.bool)
    found = disagreement_histograms(
        torch.from_numpy(logit).float(), torch.from_numpy(disagreement), everywhere, everywhere
    ).image.read()
    doubt, minority = 1 / (1 + np.exp(np.abs(logit.ravel()))), disagreement.ravel()
    assert found.pearson == pytest.approx(float(pearsonr(doubt, minority)[0]), abs=1e-4)
    assert found.spearman == pytest.approx(float(np.asarray(spearmanr(doubt, minority))[0]), abs=1e-4)


@pytest.mark.parametrize("people", [2, 3, 4, 5, 6])
def test_minorities_of_up_to_six_people_are_counted_exactly(people: int) -> None:
    for minority in range(people // 2 + 1):
        assert STEPS * minority % people == 0


def test_histograms_of_objects_add_up() -> None:
    parts = [tuple(torch.from_numpy(values) for values in pixels(seed)) for seed in (3, 4)]
    everywhere = torch.ones(60, 70, dtype=torch.bool)
    total = sum((disagreement_histograms(*part, everywhere, everywhere).image for part in parts), DisagreementHistogram.empty())
    joined = [torch.cat(values) for values in zip(*parts, strict=True)]
    whole = disagreement_histograms(*joined, *[torch.cat([everywhere] * 2)] * 2).image
    np.testing.assert_array_equal(total.counts, whole.counts)
    assert whole.counts.sum() == 2 * 60 * 70


def test_people_who_agree_everywhere_leave_the_correlation_undefined() -> None:
    logit, everywhere = torch.from_numpy(pixels(5)[0]), torch.ones(60, 70, dtype=torch.bool)
    found = disagreement_histograms(logit, torch.zeros(60, 70), everywhere, everywhere).image.read()
    assert math.isnan(found.spearman)
    assert math.isnan(found.pearson)


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="no pixel"):
        DisagreementHistogram.empty().read()


def a_set(root: Path, names: list[str], size: tuple[int, int] = (4, 6)) -> Path:
    for folder in ("masks", "annotators"):
        (root / folder).mkdir()
    cv2.imwrite(str(root / "masks" / "a.png"), np.ones((4, 6), np.uint8))
    for i, name in enumerate(names):
        cv2.imwrite(str(root / "annotators" / name), np.full(size, i, np.uint8))
    return root / "masks" / "a.png"


def test_segmentations_of_an_image_are_found_by_name_and_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    mask = a_set(tmp_path, ["a_10.png", "a_2.png", "a_b_1.png", "b_1.png", "a_x.png"])
    assert [file.name for file in annotator_files(mask)] == ["a_2.png", "a_10.png"]
    assert read_people(mask).regions[:, 0, 0].tolist() == [1, 0]


def test_a_set_without_annotators_has_no_segmentations(tmp_path: Path) -> None:
    mask = a_set(tmp_path, [])
    (tmp_path / "annotators").rmdir()
    assert annotator_files(mask) == ()
    with pytest.raises(ValueError, match=r"a\.png: no segmentations annotators/a_<number>\.png"):
        read_people(mask)


def test_a_segmentation_of_another_size_is_refused(tmp_path: Path) -> None:
    mask = a_set(tmp_path, ["a_0.png"], size=(6, 4))
    with pytest.raises(ValueError, match=r"a_0\.png: 4 x 6 pixels, but .*a\.png has 6 x 4"):
        read_people(mask)


@pytest.mark.real_data
def test_most_objects_of_bsds500_are_named_by_enough_people_and_the_reference_is_one_of_them(real_data: Path) -> None:
    masks = sorted((real_data / "eval" / "bsds500" / "masks").glob("*.png"))[:12]
    assert len(masks) == 12
    judged = []
    for mask in masks:
        people, ids = read_people(mask), read_mask(mask)
        assert len(people.regions) >= 4
        for i in itertools.islice(object_ids(ids), 5):
            truth = ids == i
            found = people_disagree(people, truth)
            judged.append(found is not None)
            if found is not None:
                assert 0 <= found.min() <= found.max() <= 0.5
            # the person whose regions the objects are has this very region
            assert any(np.isin(regions, np.unique(regions[truth])).sum() == truth.sum() for regions in people.regions)
    assert sum(judged) > 0.6 * len(judged)
