"""The thresholds of a calibration, and what they promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ruac.calibrate.risk import CELLS, HALF, REACH, Level, Losses, check_alpha, choose, count, logit_of

SHAPE = (12, 16)


def picture(rng: np.random.Generator, wrong: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores that follow the truth with noise, the truth, and which pixels count."""
    truth = torch.zeros(SHAPE, dtype=torch.bool)
    truth[3:9, 4:12] = True
    noise = rng.normal(0, wrong, SHAPE)
    scores = torch.from_numpy(np.where(truth, 3.0, -3.0) + noise).float()
    return scores, truth, torch.from_numpy(rng.random(SHAPE) < 0.9) | truth


def losses_of(pictures: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> Losses:
    return sum((Losses.of_image([count(*each)]) for each in pictures), Losses.none())


def missed(scores: torch.Tensor, truth: torch.Tensor, threshold: float) -> float:
    return float((truth & ~(scores >= threshold)).sum() / truth.sum())


def wrong(scores: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, threshold: float) -> float:
    return min(1.0, float(((scores >= threshold) & ~truth & valid).sum() / truth.sum()))


@pytest.mark.parametrize("index", [0, 1, 1500, HALF - 1, HALF, HALF + 1, 2500, CELLS - 1, CELLS])
def test_losses_are_those_of_the_masks_at_the_threshold(index: int) -> None:
    rng = np.random.default_rng(3)
    pictures = [picture(rng, spread) for spread in (1.0, 4.0, 9.0)]
    # scores exactly on the threshold belong to the mask
    if 0 < index < CELLS:
        for scores, _, _ in pictures:
            scores[5, 5] = scores[0, 0] = logit_of(index)
    losses = losses_of(pictures)
    threshold = logit_of(index)
    assert losses.missed[index] == pytest.approx(sum(missed(s, y, threshold) for s, y, _ in pictures), abs=1e-6)
    assert losses.wrong[index] == pytest.approx(sum(wrong(s, y, v, threshold) for s, y, v in pictures), abs=1e-6)
    area = sum(float(((s >= threshold) & v).sum() / y.sum()) for s, y, v in pictures)
    assert losses.area[index] == pytest.approx(area, abs=1e-6)


def test_scores_beyond_the_grid_are_in_no_inner_mask_of_the_last_threshold_and_in_every_outer_one() -> None:
    scores = torch.full(SHAPE, 3 * REACH)
    scores[0, :8] = -3 * REACH
    truth = torch.zeros(SHAPE, dtype=torch.bool)
    truth[0] = True
    losses = Losses.of_image([count(scores, truth, torch.ones_like(truth))])
    assert (logit_of(0), logit_of(CELLS)) == (-math.inf, math.inf)
    assert losses.missed[[0, 1, CELLS - 1, CELLS]].tolist() == [0, 0.5, 0.5, 1]
    assert losses.wrong[[0, CELLS - 1, CELLS]].tolist() == [1, 1, 0]


@given(st.lists(st.floats(0, 12), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_losses_are_monotone_shares(spreads: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects = [count(*picture(rng, spread)) for spread in spreads]
    losses = Losses.of_image(objects)
    assert (np.diff(losses.missed) >= 0).all()
    assert (np.diff(losses.wrong) <= 0).all()
    assert (losses.missed[0], losses.missed[-1], losses.wrong[-1], losses.area[-1]) == (0, 1, 0, 0)
    assert losses.wrong.max() <= 1


def test_objects_of_an_image_count_as_one() -> None:
    rng = np.random.default_rng(0)
    good, bad = count(*picture(rng, 0.1)), count(*picture(rng, 9.0))
    both = Losses.of_image([good, bad])
    assert both.images == 1
    np.testing.assert_allclose(both.missed, (Losses.of_image([good]).missed + Losses.of_image([bad]).missed) / 2)


@given(st.integers(1, 60), st.floats(0.03, 0.6), st.integers(0, 2**32 - 1))
def test_thresholds_are_the_tightest_that_keep_the_bound(n: int, alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses = losses_of([picture(rng, rng.uniform(0, 8)) for _ in range(n)])
    if alpha < 1 / (n + 1):
        with pytest.raises(ValueError, match="takes"):
            choose(losses, alpha)
        return
    level = choose(losses, alpha)

    def bound(total: float) -> float:
        return n / (n + 1) * (total / n) + 1 / (n + 1)

    at = {logit_of(index): index for index in range(CELLS + 1)}
    outer, inner = at[level.outer.logit], at[level.inner.logit]
    assert bound(losses.missed[outer]) <= alpha + 1e-12
    assert bound(losses.wrong[inner]) <= alpha + 1e-12
    assert outer == HALF or bound(losses.missed[outer + 1]) > alpha - 1e-12
    assert inner == HALF + 1 or bound(losses.wrong[inner - 1]) > alpha - 1e-12
    assert level.outer.logit <= 0 < level.inner.logit
    assert level.outer.risk == losses.missed[outer] / n
    assert level.inner.size == losses.area[inner] / n


def test_loss_of_a_new_picture_stays_below_alpha_and_not_far_below() -> None:
    """Over 150 draws of 39 pictures and a new one: alpha - 2 / (n + 1) is the theorem's lower bound for continuous losses."""
    rng, n, alpha = np.random.default_rng(1), 39, 0.2
    lost = []
    for _ in range(150):
        # pictures differ, as real ones do
        *calibration, new = [picture(rng, spread) for spread in rng.gamma(2, 3, n + 1)]
        level = choose(losses_of(calibration), alpha)
        scores, truth, valid = new
        lost.append((missed(scores, truth, level.outer.logit), wrong(scores, truth, valid, level.inner.logit)))
    mean, error = np.mean(lost, 0), np.std(lost, 0) / math.sqrt(len(lost))
    assert (mean <= alpha + 2 * error).all()
    assert (mean >= alpha - 2 / (n + 1) - 2 * error).all()


def test_too_few_images_are_refused_with_how_many_would_do() -> None:
    with pytest.raises(
        ValueError, match=r"^--alpha 0\.01: takes 99 labelled images with an object, there are 60, .* is 0\.0164$"
    ):
        check_alpha(0.01, 60)
    for alpha in (0.05, 0.1, 0.2, 0.5, 1 / 3, 0.01):
        needed = math.ceil(1 / alpha - 1 - 1e-9)
        check_alpha(alpha, needed)
        with pytest.raises(ValueError, match=f"takes {needed} "):
            check_alpha(alpha, needed - 1)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 10.0, math.nan])
def test_alpha_is_a_share(alpha: float) -> None:
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        check_alpha(alpha, 1000)


def test_the_fewest_images_promise_with_the_whole_picture_and_nothing() -> None:
    """With alpha = 1 / (n + 1) no loss is allowed, and some pixel lies on the wrong side of every threshold."""
    rng = np.random.default_rng(0)
    pictures = [picture(rng, 1.0) for _ in range(9)]
    for scores, truth, valid in pictures:
        scores[5, 5], scores[0, 0] = -1000, 1000
        valid[0, 0] = True
        assert truth[5, 5]
        assert not truth[0, 0]
    level = choose(losses_of(pictures), 0.1)
    assert (level.outer.logit, level.inner.logit) == (-math.inf, math.inf)
    assert isinstance(level, Level)


def test_scores_that_are_no_numbers_are_refused() -> None:
    scores, truth, valid = picture(np.random.default_rng(0), 1.0)
    scores[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        count(scores, truth, valid)
