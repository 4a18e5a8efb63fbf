"""Objects followed through clips of moving squares, with the light memory; and what is read out of a track."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import tiny_sam2
from safetensors.torch import load, save
from sklearn.metrics import roc_auc_score

from ruac.distribution import MaskDistribution
from ruac.model import RuacModel
from ruac.video import affinity, trust
from ruac.video.affinity import Remembered, propagate
from ruac.video.curve import ALARM, LASTING_ALARM, alarm_score, alarms, correction_gain, next_frame
from ruac.video.evaluate import auroc, drifted
from ruac.video.motion import carried, moments, steadied
from ruac.video.predictor import TrackedFrame, VideoPredictor

FRAMES, SIZE = 8, (48, 64)


def moving_square(frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """Frames, and masks of a bright square that moves two pixels to the right each time."""
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 60, (frames, *SIZE, 3), dtype=np.uint8)
    masks = np.zeros((frames, *SIZE), np.bool_)
    for i in range(frames):
        masks[i, 16:32, 10 + 2 * i : 26 + 2 * i] = True
        clip[i][masks[i]] += 150
    return clip, masks


@pytest.fixture
def predictor(tiny_model: RuacModel) -> VideoPredictor:
    video = VideoPredictor(tiny_model)
    video.set_video(moving_square()[0])
    return video


def means(track: list[TrackedFrame], number: int = 1) -> list[torch.Tensor]:
    return [tracked.objects[number].prediction.distribution.mean for tracked in track]


def test_a_track_goes_both_ways_from_the_prompt(predictor: VideoPredictor) -> None:
    told = predictor.add_prompt(3, 1, [[24, 24]], box=[16, 16, 32, 32])
    assert [told.frame, told.objects[1].told] == [3, True]
    assert [tracked.frame for tracked in predictor.propagate()] == [3, 4, 5, 6, 7]
    assert [tracked.frame for tracked in predictor.propagate(3, reverse=True)] == [3, 2, 1, 0]
    answer = predictor.step(2, reverse=True).objects[1]
    assert not answer.told
    assert answer.prediction.masks.shape == (1, *SIZE)
    assert 0 <= answer.doubt <= 1
    assert (answer.prediction.distribution.variance > 0).any()


def test_what_was_told_on_a_frame_stands(predictor: VideoPredictor) -> None:
    _, masks = moving_square()
    predictor.add_prompt(0, mask=masks[0])
    drawn = predictor.add_prompt(4, mask=masks[4]).objects[1]
    assert (drawn.prediction.masks[0] == masks[4]).mean() > 0.99
    assert drawn.doubt < 0.25  # of 16 cells along a side, many hold the outline
    for reverse in (False, True):
        again = [t for t in predictor.propagate(7 if reverse else 0, reverse=reverse) if t.frame == 4]
        assert torch.equal(means(again)[0], drawn.prediction.distribution.mean)


def test_a_second_object_does_not_change_the_first(predictor: VideoPredictor) -> None:
    predictor.add_prompt(0, 1, [[18, 24]])
    alone = means(list(predictor.propagate()))
    predictor.reset()
    predictor.add_prompt(0, 1, [[18, 24]])
    predictor.add_prompt(0, 5, [[50, 40]])
    track = list(predictor.propagate())
    assert set(track[-1].objects) == {1, 5}
    for one, other in zip(alone, means(track), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_correction_changes_the_frames_nearest_to_it(predictor: VideoPredictor) -> None:
    _, masks = moving_square()
    predictor.add_prompt(0, 1, [[18, 24]])
    before = means(list(predictor.propagate()))
    predictor.add_prompt(5, mask=masks[5])
    changed = {tracked.frame: tracked for tracked in predictor.refine(5)}
    assert sorted(changed) == [3, 4, 5, 6, 7]
    assert not torch.equal(means([changed[6]])[0], before[6])


def test_a_predictor_that_was_put_down_goes_on_alike(tiny_model: RuacModel) -> None:
    tracks = []
    for interrupted in (False, True):
        predictor = VideoPredictor(tiny_model)
        predictor.set_video(moving_square()[0])
        predictor.add_prompt(2, 1, [[22, 24]])
        predictor.add_prompt(2, 3, [[50, 40]])
        list(predictor.propagate(stop=4))
        if interrupted:
            tensors, values = predictor.state()
            predictor = VideoPredictor(tiny_model)
            predictor.set_video(moving_square()[0])
            predictor.restore(load(save(tensors)), values)
        tracks.append([*predictor.propagate(5), *predictor.propagate(2, reverse=True)])
    for whole, resumed in zip(*tracks, strict=True):
        for number in (1, 3):
            ours, theirs = (tracked.objects[number].steady.distribution for tracked in (resumed, whole))
            assert torch.equal(ours.mean, theirs.mean)
            assert torch.equal(ours.variance, theirs.variance)


def test_memory_holds_a_few_frames_only(tiny_model: RuacModel) -> None:
    sizes = []
    for frames in (12, 30):
        predictor = VideoPredictor(tiny_model)
        predictor.set_video(moving_square(frames)[0] if frames < 20 else np.repeat(moving_square()[0], 4, 0)[:frames])
        predictor.add_prompt(0, 1, [[18, 24]])
        list(predictor.propagate())
        sizes.append(sum(value.numel() for value in predictor.state()[0].values()))
    assert sizes[0] == sizes[1]


def test_the_way_back_of_a_still_film_agrees_with_itself(tiny_model: RuacModel) -> None:
    clip, masks = moving_square()
    predictor = VideoPredictor(tiny_model)
    predictor.set_video(np.repeat(clip[:1], 4, 0))
    found = dict(predictor.retrace(0, 3, dict.fromkeys(range(4), masks[0])))
    assert list(found) == [3, 2, 1, 0]
    assert found[3] is not None
    assert found[3] < 0.1
    assert all(value is not None and 0 <= value <= 1 for value in found.values())
    # an object that is gone at the end is followed back from where it was seen last
    gone = {n: masks[0] & (n < 2) for n in range(4)}
    found = dict(predictor.retrace(0, 3, gone))
    assert [n for n, value in found.items() if value is None] == [3, 2]


def leaving(frames: int, last: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a red disk on a leafy ground, which a blue square stands on; after `last` the disk is gone."""
    rng = np.random.default_rng(1)
    ground = np.kron(rng.integers(60, 140, (18, 24, 1)), np.ones((10, 10, 1))).repeat(3, 2) * (0.5, 1.0, 0.5)
    rows, columns = np.ogrid[:180, :240]
    clip, masks = np.empty((frames, 180, 240, 3), np.uint8), np.zeros((frames, 180, 240), np.bool_)
    for n in range(frames):
        clip[n] = ground
        clip[n, 100:150, 170:220] = (40, 60, 220)
        masks[n] = ((rows - 80) ** 2 + (columns - 80 - 2 * n) ** 2 < 30**2) & (last is None or n <= last)
        clip[n][masks[n]] = (220, 40, 30)
    return clip, masks


def test_nano_doubts_a_track_whose_object_has_left() -> None:
    """Not by its object score, which is untrained and not told."""
    doubts = {}
    for last in (None, 5):
        clip, masks = leaving(10, last)
        predictor = VideoPredictor("nano")
        predictor.set_video(clip)
        predictor.add_prompt(0, mask=masks[0])
        answers = [tracked.objects[1] for tracked in predictor.propagate()]
        assert {answer.prediction.object_score for answer in answers[1:]} == {None}
        doubts[last] = [answer.doubt for answer in answers]
    assert max(doubts[5][1:6]) < ALARM < min(doubts[5][6:])
    assert max(doubts[None][1:]) < ALARM
    assert alarms(np.array(doubts[5])) == [(6, 9)]


def test_an_object_score_that_was_trained_is_told() -> None:
    model = RuacModel.around(tiny_sam2())
    predictor = VideoPredictor(model)
    predictor.set_video(moving_square()[0])
    predictor.add_prompt(0, 1, [[18, 24]])
    assert predictor.step(1).objects[1].prediction.object_score is not None


def test_trust_falls_with_what_is_recognised_and_with_jumps() -> None:
    mask = torch.zeros(20, 20)
    mask[5:11, 5:11] = 1
    assert trust.jump(mask, mask.roll(4, 1)) < 1e-5
    larger = torch.zeros(20, 20)
    larger[5:11, 5:17] = 1
    assert trust.jump(mask, larger) == pytest.approx(np.log((12**2 - 1) / (6**2 - 1)))  # of a row of n cells, (n² - 1) / 12
    assert trust.jump(larger, mask) == pytest.approx(trust.jump(mask, larger))
    nothing = torch.zeros(20, 20)
    assert trust.jump(mask, nothing) == trust.jump(nothing, mask) == trust.LARGEST_JUMP
    assert trust.jump(nothing, nothing) == 0
    assert trust.support(mask, torch.ones(20, 20)) == pytest.approx(1)
    assert trust.support(mask, mask.roll(3, 1)) == pytest.approx(0.5)
    assert trust.support(nothing, torch.ones(20, 20)) == 0
    assert trust.Signs(1, 0).trust == 1
    assert trust.Signs(0.5, 0).trust < 1
    assert trust.Signs(1, 1).trust < 1


def test_a_mask_that_is_empty_is_all_doubt_where_nothing_says_why(predictor: VideoPredictor) -> None:
    predictor.add_prompt(0, 1, [[18, 24]])
    answer = predictor.step(1).objects[1]
    emptied = replace(answer.prediction.distribution, mean=torch.full_like(answer.prediction.distribution.mean, -9))
    gone = replace(answer, prediction=replace(answer.prediction, distribution=emptied))
    assert gone.doubt == gone.own_doubt == 1
    assert answer.signs is not None
    assert 1 - answer.doubt == pytest.approx(answer.signs.trust * (1 - answer.own_doubt))
    assert replace(gone, prediction=replace(gone.prediction, object_score=0.2)).doubt == 0.2


def test_the_largest_jump_is_remembered_until_the_next_prompt(predictor: VideoPredictor) -> None:
    _, masks = moving_square()
    large = np.ones(SIZE, np.bool_)
    large[:4] = False
    predictor.add_prompt(0, mask=masks[0])
    predictor.add_prompt(3, mask=large)
    jumps = [tracked.objects[1].signs.jump for tracked in predictor.propagate(1) if tracked.objects[1].signs]
    assert len(jumps) == FRAMES - 2  # all but the first frame, which is not asked for, and the third, which was told
    assert jumps[0] <= jumps[1]
    assert jumps[2] <= jumps[3] <= jumps[4] <= jumps[5]


def test_a_head_beside_a_model_that_has_one_is_an_error(tiny_model: RuacModel) -> None:
    with pytest.raises(ValueError, match=r"mine\.safetensors: a RuacModel has its head inside"):
        VideoPredictor(tiny_model, head=Path("mine.safetensors"))


def test_a_track_has_drifted_when_it_is_lost_for_long() -> None:
    j = np.array([0.9, 0.8, 0.4, 0.8, 0.3, 0.2, 0.1, 0.7, 0.4, 0.4])
    assert np.flatnonzero(drifted(j)).tolist() == [4, 5, 6]
    assert not drifted(j[:4]).any()
    assert not drifted(np.full(5, 0.2)).any()  # what was never good has not got worse


def test_detection_is_measured_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    events = np.array([False, True, True, False, False, True])
    for score in (np.array([0.1, 0.9, 0.4, 0.4, 0.2, 0.4]), rng.random(6), np.zeros(6)):
        assert auroc(events, score) == pytest.approx(roc_auc_score(events, score))
    doubt = np.array([0.1, 0.9, 0.2, 0.7, 0.6, 0.8, 0.3])
    lost = drifted(1 - np.array([0.1, 0.2, 0.1, 0.9, 0.9, 0.9, 0.2]))
    assert auroc(lost, alarm_score(doubt)) == pytest.approx(roc_auc_score(lost, alarm_score(doubt))) == 1
    assert np.isnan(auroc(np.zeros(3, np.bool_), np.arange(3.0)))


def test_wrong_use_is_named(predictor: VideoPredictor, tiny_model: RuacModel) -> None:
    with pytest.raises(RuntimeError, match="set_video"):
        VideoPredictor(tiny_model).add_prompt(0, 1, [[1, 1]])
    with pytest.raises(RuntimeError, match="add_prompt"):
        next(predictor.propagate())
    with pytest.raises(IndexError, match="frames 0 to 7"):
        predictor.add_prompt(8, 1, [[1, 1]])
    with pytest.raises(ValueError, match="outside the image"):
        predictor.add_prompt(0, 1, [[100, 1]])
    with pytest.raises(ValueError, match="empty mask"):
        predictor.add_prompt(0, mask=np.zeros(SIZE, np.bool_))
    with pytest.raises(ValueError, match="no points"):
        predictor.add_prompt(0, 1, [[1, 1]], mask=np.ones(SIZE, np.bool_))
    with pytest.raises(ValueError, match=r"\[48, 64\]"):
        predictor.add_prompt(0, mask=np.ones((3, 3), np.bool_))


def test_labels_follow_features_that_move() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(256, 10, 12, generator=rng), dim=0)
    label = torch.zeros(1, 10, 12)
    label[0, 3:6, 4:7] = 1
    moved = propagate(features.roll(2, 2), [Remembered(features, anywhere=False)], [label])
    assert torch.equal(moved > 0.5, label.roll(2, 2) > 0.5)
    far = features.roll(affinity.REACH + 2, 2)
    assert not torch.equal(propagate(far, [Remembered(features, anywhere=False)], [label]) > 0.5, label.roll(5, 2) > 0.5)
    assert torch.equal(propagate(far, [Remembered(features, anywhere=True)], [label]) > 0.5, label.roll(5, 2) > 0.5)


def disk(x: float, y: float, radius: float, variance: float = 0.5) -> MaskDistribution:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    mean = (radius - ((columns - x).square() + (rows - y).square()).sqrt())[None]
    return MaskDistribution(mean, torch.full_like(mean, variance))


def test_moments_of_a_disk() -> None:
    found = moments((disk(20, 15, 8).mean[0] > 0).float())
    assert found is not None
    centre, extent = found
    torch.testing.assert_close(centre, torch.tensor([20.0, 15.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(extent, torch.tensor([4.0, 4.0]), atol=0.2, rtol=0)


def test_a_mask_that_moves_and_grows_is_no_reason_for_doubt() -> None:
    now, before = disk(30, 20, 10), disk(18, 14, 8)
    moved = carried(before, now)
    assert moved is not None
    near = now.mean.abs() < 2
    assert (moved.mean - now.mean)[near].abs().mean() < 0.5
    assert (before.mean - now.mean)[near].abs().mean() > 4


def test_doubt_grows_where_frames_disagree_and_the_mask_stays() -> None:
    now, before = disk(20, 20, 8), disk(20, 20, 8)
    assert torch.allclose(steadied(now, before).variance, now.variance)
    changed = MaskDistribution(now.mean.clone(), now.variance)
    changed.mean[0, :, :20] = -5
    steady = steadied(now, changed)
    assert torch.equal(steady.mean, now.mean)
    assert (steady.variance[0, :, :20] > now.variance[0, :, :20]).any()
    assert torch.equal(steady.variance[0, :, 20:], now.variance[0, :, 20:])


def test_an_empty_mask_has_no_motion() -> None:
    nothing = MaskDistribution(torch.full((1, 40, 50), -1024.0), torch.zeros(1, 40, 50))
    assert carried(nothing, disk(20, 20, 8)) is None
    assert steadied(disk(20, 20, 8), None).variance.mean() == 0.5


def test_the_alarm_needs_doubt_that_lasts() -> None:
    high, low = ALARM + 0.1, ALARM - 0.1
    short, long = [high] * (LASTING_ALARM - 1), [high] * LASTING_ALARM
    assert alarms(np.array([low, *short, low])) == []
    assert alarms(np.array([low, *long, low, *long])) == [(1, LASTING_ALARM), (LASTING_ALARM + 2, 2 * LASTING_ALARM + 1)]
    assert alarm_score(np.array([0.2, 0.9, 0.7, 0.8, 0.1])).tolist() == [0.2, 0.7, 0.7, 0.7, 0.1]
    assert alarm_score(np.array([0.9, 0.8])).tolist() == [0, 0]


def test_the_next_frame_is_in_the_middle_of_the_doubt() -> None:
    doubt = np.full(60, 0.05)
    doubt[30:45] = 0.9
    assert 33 <= (next_frame(doubt, [0]) or 0) <= 41
    doubt[10] = 1.0  # one bad frame helps no other
    assert 33 <= (next_frame(doubt, [0]) or 0) <= 41
    assert next_frame(doubt, range(60)) is None


def test_a_prompt_stops_what_a_correction_reaches() -> None:
    doubt = np.full(9, 0.8)
    gain = correction_gain(doubt, [4])
    assert gain[4] == 0
    np.testing.assert_allclose(gain[:4], gain[:4:-1])
    assert correction_gain(doubt, [])[3] > gain[3]
    slow = [sum(max(0, 0.8 - 0.5 * (1 - np.exp(-abs(s - t) / 8))) for s in range(4)) for t in range(4)]
    np.testing.assert_allclose(gain[:4], slow)
