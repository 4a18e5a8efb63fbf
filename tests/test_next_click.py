"""The annotators of benchmarks/next_click.py: where they look, and what of it they correct."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from squares import write_set

from ruac.data.folder import FolderSet
from ruac.distribution import MaskDistribution
from ruac.features import Frame
from ruac.model import RuacModel
from ruac.predictor import Prediction, Predictor

SIDE = 40


@pytest.fixture(scope="module")
def annotator() -> Iterator[ModuleType]:
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    import next_click

    yield next_click
    sys.path.remove(folder)


@pytest.fixture
def truth() -> np.ndarray:
    truth = np.zeros((SIDE, SIDE), np.bool_)
    truth[5:20, 5:20] = True
    return truth


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def target(annotator: ModuleType, truth: np.ndarray, valid: np.ndarray | None = None) -> object:
    return annotator.Target(truth, np.ones_like(truth) if valid is None else valid, np.random.default_rng(0))


def test_a_wrong_place_is_corrected_at_the_centre_of_its_wrong_region(annotator: ModuleType, truth: np.ndarray) -> None:
    mask = truth & ~box(5, 5, 12, 12)  # a corner of 7 x 7 is missing
    click = annotator.look(mask, target(annotator, truth), 5, 5)
    assert (click.x, click.y, click.label) == (8, 8, 1)


def test_what_is_too_much_is_taken_away(annotator: ModuleType, truth: np.ndarray) -> None:
    mask = truth | box(30, 30, 35, 35)
    click = annotator.look(mask, target(annotator, truth), 34, 30)
    assert (click.x, click.y, click.label) == (32, 32, 0)


def test_a_right_place_is_confirmed_whatever_is_wrong_elsewhere(annotator: ModuleType, truth: np.ndarray) -> None:
    mask = truth | box(30, 30, 35, 35)
    for x, y, label in ((10, 10, 1), (1, 1, 0)):
        click = annotator.look(mask, target(annotator, truth), x, y, box(0, 0, 25, 25))
        assert (click.x, click.y, click.label) == (x, y, label)


def test_the_nearest_error_within_the_suggested_region_is_corrected(annotator: ModuleType, truth: np.ndarray) -> None:
    mask = truth | box(30, 30, 35, 35) | box(30, 0, 39, 9)
    click = annotator.look(mask, target(annotator, truth), 25, 25, box(20, 0, 36, 36))
    assert (click.x, click.y, click.label) == (32, 32, 0)


def test_ignored_pixels_are_never_wrong(annotator: ModuleType, truth: np.ndarray) -> None:
    mask = truth | box(30, 30, 35, 35)
    click = annotator.look(mask, target(annotator, truth, ~box(25, 25, 40, 40)), 32, 32)
    assert (click.x, click.y, click.label) == (32, 32, 1)


@pytest.fixture
def doubtful() -> Prediction:
    """An empty mask, sure but for a wide region in its upper half, most of all at a pixel in a corner of that."""
    logits = torch.full((1, SIDE, SIDE), -9.0)
    logits[0, 2:22, 2:38] = -0.2
    logits[0, 20, 36] = -0.1
    zero = torch.zeros_like(logits)
    return Prediction(MaskDistribution(logits, zero), Frame((SIDE, SIDE), (SIDE, SIDE)), SIDE, np.array([0.5], np.float32), 1.0)


def test_the_largest_error_in_the_suggested_region_is_corrected(annotator: ModuleType, doubtful: Prediction) -> None:
    search = annotator.POLICIES["next_click"]
    missing = box(3, 3, 8, 8) | box(5, 25, 14, 34) | box(24, 2, 40, 38)  # the last, the largest, is where no doubt is
    click = search(doubtful, target(annotator, missing))
    assert (click.x, click.y, click.label) == (29, 9, 1)
    assert click.seen == Predictor.next_click(doubtful).region.sum() > 600
    right = search(doubtful, target(annotator, box(24, 2, 40, 38)))
    suggested = Predictor.next_click(doubtful)
    assert (right.x, right.y, right.label) == (suggested.x, suggested.y, 0)


def test_the_disc_has_as_many_pixels_as_the_region_and_lies_around_the_highest_entropy(
    annotator: ModuleType, doubtful: Prediction
) -> None:
    search, pixels = annotator.POLICIES["entropy_region"], int(Predictor.next_click(doubtful).region.sum())
    near, far = box(24, 24, 30, 30), box(2, 2, 14, 14)  # beside the region, and in it far from the disc's centre
    click = search(doubtful, target(annotator, near | far))
    assert (click.x, click.y, click.label, click.seen) == (26, 26, 1, pixels)
    right = search(doubtful, target(annotator, box(0, 0, 3, 3)))
    assert (right.x, right.y, right.label, right.seen) == (36, 20, 0, pixels)


def test_a_disc_is_what_lies_nearest_to_its_centre(annotator: ModuleType) -> None:
    for x, y, pixels in ((20, 20, 1), (20, 20, 113), (0, 0, 300), (39, 5, SIDE * SIDE)):
        disc = annotator.disc((SIDE, SIDE), x, y, pixels)
        assert disc.sum() == pixels
        rows, columns = np.indices((SIDE, SIDE))
        distance = np.hypot(rows - y, columns - x)
        assert distance[disc].max() <= distance[~disc].min(initial=np.inf)


def test_a_disc_anywhere_is_around_all_pixels_alike(annotator: ModuleType, doubtful: Prediction) -> None:
    nothing = target(annotator, np.zeros((SIDE, SIDE), np.bool_))
    clicks = [annotator.POLICIES["random_region"](doubtful, nothing) for _ in range(300)]
    assert {click.label for click in clicks} == {0}
    for places in ([click.x for click in clicks], [click.y for click in clicks]):
        assert abs(np.mean(places) - (SIDE - 1) / 2) < 3
        assert (min(places), max(places)) == (0, SIDE - 1)


def test_all_policies_begin_alike_and_none_goes_on_after_the_last_target(
    annotator: ModuleType, tiny_model: RuacModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FolderSet.open(write_set(tmp_path / "squares", images=1))
    asked: list[int] = []
    predict_many = Predictor.predict_many

    def counted(self: Predictor, prompts: list, *rest: bool) -> list[Prediction]:
        asked.extend(len(prompt.point_coords) for prompt in prompts)
        return predict_many(self, prompts, *rest)

    monkeypatch.setattr(Predictor, "predict_many", counted)
    effort = annotator.effort_of(Predictor(tiny_model), folder, folder.samples[0], objects=2, clicks=3)
    table = effort.clicks
    assert table.shape == (len(annotator.POLICIES), 3, 2)
    # random weights never get there: two objects, once for the first click of all, then two more clicks a policy
    assert table[..., 0].tolist() == [[3.0] * 3] * len(annotator.POLICIES)
    assert table[..., 1].min() == 1
    assert {name: looks.shape for name, looks in effort.seen.items()} == dict.fromkeys(annotator.POLICIES, (4, 2))
    assert effort.seen["oracle"][:, 0].tolist() == [1] * 4
    assert effort.seen["place"][:, 0].tolist() == pytest.approx([1 / (40 * 56)] * 4)
    assert sorted(asked) == [1] * 2 + [2] * 2 * len(annotator.POLICIES) + [3] * 2 * len(annotator.POLICIES)


def test_figures_are_means_over_sets_of_means_over_images(annotator: ModuleType) -> None:
    names = list(annotator.POLICIES)
    table = np.zeros((2, len(names), 3, 2))
    table[..., 0] = 10
    table[:, names.index("next_click"), 1, 0] = 4, 6
    table[:, names.index("oracle"), 1, 0] = 5
    other = table.copy()
    other[:, names.index("next_click"), 1, 0] = 7

    def efforts(table: np.ndarray, *seen: list[tuple[float, float]]) -> list[object]:
        looks = [np.reshape(pairs, (-1, 2)) for pairs in seen]
        return [annotator.Effort(*each) for each in zip(table, [dict.fromkeys(names, pairs) for pairs in looks], strict=True)]

    found = annotator.judge({"a": efforts(table, [(0.1, 1.0), (0.3, 2.0)], [(0.5, 6.0)]), "b": efforts(other, [(0.5, 5.0)], [])})
    assert found["figures"]["looked_at"]["next_click"] == {"of_picture": 0.4, "of_object": 4.0}
    assert found["figures"]["next_click"]["noc@85"][0] == 6
    assert found["figures"]["ratio@85"]["next_click"][0] == 1.2
    assert found["missed"] == ["ratio to the oracle 1.200 > 1.15"]
    table[:, names.index("entropy_region"), 1, 0] = 4, 5
    assert annotator.judge({"a": efforts(table, [], [])})["missed"] == ["no fewer clicks than entropy_region"]
