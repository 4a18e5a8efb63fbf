import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ruac.evaluate.patches import PATCH, THRESHOLDS, PatchCounts, patch_counts


def picture(seed: int, height: int, width: int, ignored: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, (height, width))
    # what is wrong and what is ignored comes in blocks, or all patches would be alike
    coarse = rng.random((2, height // 3 + 1, width // 3 + 1)).repeat(3, 1).repeat(3, 2)[:, :height, :width]
    mask = (logit > 0) != (rng.random(logit.shape) < 0.2)
    truth = mask != (coarse[0] < 0.5)
    # some patches are ignored altogether
    valid = coarse[1] > ignored
    valid[: 2 * PATCH, : 2 * PATCH] = False
    return torch.from_numpy(logit), torch.from_numpy(mask), torch.from_numpy(truth), torch.from_numpy(valid)


def by_loop(logit: Tensor, mask: Tensor, truth: Tensor, valid: Tensor) -> np.ndarray:
    """Pixel by pixel, patch by patch, threshold by threshold."""
    height, width = logit.shape
    counts = np.zeros((len(THRESHOLDS), 4), int)
    for top in range(0, height, PATCH):
        for left in range(0, width, PATCH):
            right, doubt = [], []
            for y in range(top, min(top + PATCH, height)):
                for x in range(left, min(left + PATCH, width)):
                    if valid[y, x]:
                        signed = float(logit[y, x]) if mask[y, x] else -float(logit[y, x])
                        error = 1 / (1 + math.exp(signed))
                        entropy = -error * math.log2(error) - (1 - error) * math.log2(1 - error)
                        doubt.append(entropy if error < 0.5 else 1.0)
                        right.append(bool(mask[y, x] == truth[y, x]))
            for i, threshold in enumerate(THRESHOLDS if right else ()):
                inaccurate, uncertain = np.mean(right) <= 0.5, np.mean(doubt) > threshold
                counts[i, 2 * inaccurate + uncertain] += 1
    return counts


@pytest.mark.parametrize(("height", "width"), [(24, 32), (23, 30), (3, 2), (1, 9)])
def test_counts_are_those_of_a_loop_over_pixels(height: int, width: int) -> None:
    tensors = picture(height, height, width)
    if height < PATCH:
        tensors[3][:] = True
    found, expected = patch_counts(*tensors).counts, by_loop(*tensors)
    np.testing.assert_array_equal(found, expected)
    assert expected[0].sum() > 0


def test_all_four_kinds_of_patches_occur_in_the_comparison() -> None:
    assert (patch_counts(*picture(24, 24, 32)).counts.max(0) > 0).all()


def test_one_patch_of_each_kind() -> None:
    accurate, certain = torch.tensor([[1, 1, 0, 0]]).bool(), torch.tensor([[1, 0, 1, 0]]).bool()
    size = torch.where(certain, 6.0, 0.1)
    blow_up = torch.ones(PATCH, PATCH)
    logit = torch.kron(size, blow_up)
    truth = torch.kron(accurate.float(), blow_up).bool()
    everywhere = torch.ones_like(truth)
    counts = patch_counts(logit, everywhere, truth, everywhere)
    assert counts.counts.tolist() == [[1, 1, 1, 1]] * len(THRESHOLDS)
    scores = counts.read()
    assert scores.patches == 4
    assert scores.accurate_if_certain.tolist() == [0.5] * len(THRESHOLDS)
    assert scores.uncertain_if_inaccurate.tolist() == [0.5] * len(THRESHOLDS)
    assert scores.pavpu == 0.5


def test_a_patch_that_is_half_right_is_inaccurate() -> None:
    truth = torch.zeros(PATCH, PATCH, dtype=torch.bool)
    truth[: PATCH // 2] = True
    everywhere = torch.ones_like(truth)
    logit = torch.full(truth.shape, 8.0)
    assert patch_counts(logit, everywhere, truth, everywhere).counts.tolist() == [[0, 0, 1, 0]] * len(THRESHOLDS)


def test_labels_that_the_method_thinks_wrong_are_uncertain() -> None:
    everywhere = torch.ones(PATCH, PATCH, dtype=torch.bool)
    counts = patch_counts(torch.full((PATCH, PATCH), -torch.inf), everywhere, ~everywhere, everywhere)
    assert counts.counts.tolist() == [[0, 0, 0, 1]] * len(THRESHOLDS)
    assert counts.read().pavpu == 1


def test_certain_patches_that_are_all_right_leave_the_inaccurate_share_undefined() -> None:
    everywhere = torch.ones(8, 8, dtype=torch.bool)
    scores = patch_counts(torch.full((8, 8), torch.inf), everywhere, everywhere, everywhere).read()
    assert scores.pavpu == 1
    assert scores.accurate_if_certain.tolist() == [1] * len(THRESHOLDS)
    assert np.isnan(scores.uncertain_if_inaccurate).all()


def test_several_objects_are_counted_as_one_after_the_other() -> None:
    pictures = [picture(seed, 13, 18) for seed in range(3)]
    together = patch_counts(*(torch.stack(tensors) for tensors in zip(*pictures, strict=True)))
    apart = sum((patch_counts(*tensors) for tensors in pictures), PatchCounts.empty())
    np.testing.assert_array_equal(together.counts, apart.counts)


def test_ignored_pixels_change_nothing() -> None:
    logit, mask, truth, valid = picture(5, 20, 20)
    changed = patch_counts(torch.where(valid, logit, 50.0), mask, truth ^ ~valid, valid)
    np.testing.assert_array_equal(changed.counts, patch_counts(logit, mask, truth, valid).counts)


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="no patch"):
        PatchCounts.empty().read()


def test_not_a_number_is_refused() -> None:
    everywhere = torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="NaN"):
        patch_counts(torch.full((2, 2), torch.nan), everywhere, everywhere, everywhere)
