"""The warning that new pictures are of another kind."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from ruac.calibrate.shift import ASPECTS, FEW, LEVEL, MOST, PERMUTATIONS, Shift, Traits, compare, doubt, energy_p_value, look
from ruac.distribution import MaskDistribution
from ruac.features import Frame
from ruac.predictor import Prediction


def sample(rng: np.random.Generator, n: int, look: float = 0.0, doubt: float = 0.0) -> list[Traits]:
    """Correlated looks and skewed doubts, moved by so many standard deviations."""
    looks = rng.normal(size=(n, 11)) @ np.random.default_rng(1).normal(size=(11, 11)) / 11**0.5 + look
    doubts = rng.gamma(2, size=(n, 4)) + doubt * 2**0.5
    return [Traits(tuple(a), tuple(b)) for a, b in zip(looks.tolist(), doubts.tolist(), strict=True)]


def test_pictures_of_the_same_kind_rarely_warn() -> None:
    rng = np.random.default_rng(0)
    trials = 120
    found = [compare(sample(rng, 30), sample(rng, 20), seed) for seed in range(trials)]
    fired = sum(bool(shift and shift.aspects) for shift in found)
    # three standard deviations above the stated level
    assert fired <= trials * LEVEL + 3 * (trials * LEVEL) ** 0.5
    p = np.array([list(shift.p.values()) for shift in found if shift])
    assert p.shape == (trials, len(ASPECTS))
    # valid and not wasteful: uniform under exchangeability
    assert abs(p.mean() - 0.5) < 0.08


@pytest.mark.parametrize(("moved", "aspects"), [({"look": 1.5}, ("look",)), ({"doubt": 1.0}, ("doubt",))])
def test_other_pictures_warn_and_say_in_what_they_differ(moved: dict[str, float], aspects: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    found = [compare(sample(rng, 40), sample(rng, 20, **moved), seed) for seed in range(10)]
    assert [shift.aspects for shift in found if shift].count(aspects) >= 9


def test_energy_distance_is_that_of_its_definition() -> None:
    """The order of p values against a slow computation: the observed split is among the k most extreme of all."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(4, 2)), rng.normal(0.7, 1, size=(3, 2))
    ranks = np.argsort(np.argsort(np.concatenate([a, b]), axis=0), axis=0) + 1.0

    def energy(first: tuple[int, ...]) -> float:
        x, y = ranks[list(first)], ranks[[i for i in range(7) if i not in first]]

        def mean(u: np.ndarray, v: np.ndarray) -> float:
            return float(np.mean([np.hypot(*(p - q)) for p in u for q in v]))

        return 2 * mean(x, y) - mean(x, x) - mean(y, y)

    splits = [energy(first) for first in combinations(range(7), 4)]
    exact = np.mean(np.array(splits) >= energy((0, 1, 2, 3)) - 1e-9)
    assert energy_p_value(a, b, rng) == pytest.approx(exact, abs=4 * (exact * (1 - exact) / PERMUTATIONS) ** 0.5)


def test_too_few_pictures_say_nothing() -> None:
    rng = np.random.default_rng(0)
    many = sample(rng, 40)
    assert compare(many, sample(rng, FEW - 1, look=9)) is None
    assert compare(many[: FEW - 1], many) is None
    shift = compare(many, sample(rng, FEW, look=9, doubt=9))
    assert shift is not None
    assert shift.aspects


def test_an_aspect_is_compared_by_the_pictures_that_have_it_and_the_level_shared_by_those_compared() -> None:
    rng = np.random.default_rng(0)
    many, new = sample(rng, 40), sample(rng, 20, doubt=3.0)
    doubtless = [replace(traits, doubt=()) for traits in new]
    few = compare(many, [*doubtless[4:], *new[:4]])
    assert few is not None
    assert set(few.p) == {"look"}
    enough = compare(many, [*doubtless[5:], *new[:5]])
    assert enough is not None
    assert enough.aspects == ("doubt",)
    assert Shift({"look": 0.008}).aspects == ("look",)
    assert Shift({"look": 0.008, "doubt": 0.5}).aspects == ()


def test_the_warning_names_the_aspects_the_probability_and_the_level() -> None:
    assert Shift({"look": 0.0005, "doubt": 0.002}).words == (
        "these pictures differ from those of the calibration in how they look and in how doubtful their masks are "
        "(energy distance, p = 0.001, level 0.01)"
    )


def test_many_pictures_are_compared_in_bounded_memory() -> None:
    rng = np.random.default_rng(0)
    shift = compare(sample(rng, 3 * MOST), sample(rng, 4 * MOST, doubt=1.0))
    assert shift is not None
    assert shift.aspects == ("doubt",)


def test_equal_pictures_are_no_shift() -> None:
    same = [Traits((0.0,) * 11, (0.0,) * 4)] * 10
    shift = compare(same, same)
    assert shift is not None
    assert dict(shift.p) == {"look": 1.0, "doubt": 1.0}


def test_look_of_a_picture() -> None:
    grey = look(np.full((300, 400, 3), 119, np.uint8))
    assert grey[0] == pytest.approx(50, abs=0.5)  # CIELAB lightness of mid-grey
    assert grey[1:] == pytest.approx([0] * 10, abs=0.05)
    red = look(np.full((30, 40, 3), (255, 0, 0), np.uint8))
    assert red[:3] == pytest.approx((53.2, 80.1, 67.2), abs=0.2)
    checks = np.kron(np.indices((64, 64)).sum(0) % 2, np.ones((4, 4)))[..., None].repeat(3, -1)
    fine = look((255 * checks).astype(np.uint8))
    assert fine[3] == pytest.approx(50, abs=0.5)
    assert fine[7] == pytest.approx(2 * 100 * 63 / 255, rel=1e-3)
    # averaged away two scales up
    assert fine[9] > 100
    assert fine[10] < 1


def test_look_does_not_depend_on_the_resolution() -> None:
    rng = np.random.default_rng(0)
    small = np.kron(rng.integers(0, 256, (16, 24, 3)), np.ones((32, 32, 1))).astype(np.uint8)
    large = small.repeat(3, 0).repeat(3, 1)
    np.testing.assert_allclose(look(small), look(large), rtol=0.05, atol=0.5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_look_of_the_smallest_pictures_is_finite(shape: tuple[int, int]) -> None:
    assert np.isfinite(look(np.zeros((*shape, 3), np.uint8))).all()


def test_doubt_of_a_mask() -> None:
    mean = torch.full((1, 16, 16), -40.0)
    mean[:, 4:8, 4:8] = 40.0
    mean[:, 8, 4:8] = 0.5
    frame = Frame((64, 64), (64, 64))
    prediction = Prediction(MaskDistribution(mean, torch.zeros_like(mean)), frame, 64, np.array([0.75], np.float32), None)
    entropy, doubtful, predicted, expected = doubt(prediction)
    p = 1 / (1 + np.exp(-0.5))
    bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    assert entropy == pytest.approx(4 * bits / 256, rel=1e-5)
    assert doubtful == pytest.approx(4 / 20)
    assert predicted == 0.75
    assert expected == pytest.approx((16 + 4 * p) / 20, rel=1e-5)
