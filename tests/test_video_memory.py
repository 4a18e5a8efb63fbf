"""Tracks of transformers' video models: theirs, number by number, with an uncertainty beside them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tr
from families import shaken, tiny_edgetam, tiny_sam2, tiny_sam3_tracker
from safetensors.torch import load, save
from torch import Tensor

from ruac.adapter import save_head
from ruac.families.inputs import normalise
from ruac.heads import ExactHead
from ruac.model import RuacModel, weights_sha256
from ruac.predictor import Prompt
from ruac.video.frames import Clip
from ruac.video.memory import MemoryTracker
from ruac.video.opening import image_part, tracker_sha256
from ruac.video.predictor import VideoPredictor

FRAMES, SIZE = 9, (40, 60)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
WIDTH, REMEMBERED = 128, 64  # the least that transformers' memory attention knows
DECODER = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
MEMORY = {
    "memory_attention_hidden_size": WIDTH,
    "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": WIDTH,
    "memory_encoder_output_channels": REMEMBERED,
    "mask_downsampler_embed_dim": WIDTH,
    "memory_fuser_embed_dim": WIDTH,
    "memory_fuser_intermediate_dim": 64,
}
FEED_FORWARD = {"memory_attention_feed_forward_hidden_size": 64}
PERCEIVER = {
    "memory_attention_mlp_hidden_size": 64,
    "memory_attention_rope_k_sizes": [4, 4],
    "perceiver_resampler_hidden_size": REMEMBERED,
    "perceiver_resampler_mlp_intermediate_size": 32,
    "perceiver_resampler_num_latents": 16,
    "perceiver_resampler_num_latents_2d": 16,
}
KINDS = {
    "sam2_video": (tiny_sam2, tr.Sam2VideoConfig, tr.Sam2VideoModel, FEED_FORWARD),
    "sam3_tracker_video": (tiny_sam3_tracker, tr.Sam3TrackerVideoConfig, tr.Sam3TrackerVideoModel, FEED_FORWARD),
    "edgetam_video": (tiny_edgetam, tr.EdgeTamVideoConfig, tr.EdgeTamVideoModel, PERCEIVER),
}


def tiny_video(kind: str, **changes: Any) -> Any:
    """A video model of 64 (56) px with random weights, its parts as in `families` but for their width."""
    still, config, model, more = KINDS[kind]
    torch.manual_seed(0)
    parts = still().config
    vision, prompts = parts.vision_config, parts.prompt_encoder_config
    vision.fpn_hidden_size = prompts.hidden_size = WIDTH
    shapes = {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": DECODER}
    video = shaken(model(config(**shapes, image_size=prompts.image_size, **(MEMORY | more | changes))))
    video.mask_decoder.pred_obj_score_head.proj_out.bias.add_(2)  # there is an object
    return video


@pytest.fixture(scope="module", params=list(KINDS))
def video(request: pytest.FixtureRequest) -> Any:
    return tiny_video(request.param)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (FRAMES, *SIZE, 3), dtype=np.uint8)


class Theirs:
    """transformers' own session of the whole clip, told and run by hand."""

    def __init__(self, model: Any, clip: np.ndarray):
        self.model, family = model, RuacModel.around(image_part(model)).family
        whole = torch.stack([family.prepare(torch.from_numpy(frame).permute(2, 0, 1))[0] for frame in clip])
        pixels = normalise(whole, family.mean, family.spread, torch.float32)
        name = type(model).__name__.removesuffix("Model") + "InferenceSession"
        session = getattr(import_module(type(model).__module__), name)
        self.session = session(video=pixels, video_height=SIZE[0], video_width=SIZE[1], dtype=torch.float32)
        self.scale = torch.tensor([family.side / SIZE[1], family.side / SIZE[0]])

    def click(self, frame: int, number: int, points: list[list[float]], labels: list[int]) -> Tensor:
        index = self.session.obj_id_to_idx(number)
        coords = ((torch.tensor(points, dtype=torch.float32) + 0.5) * self.scale - 0.5)[None, None]
        self.session.add_point_inputs(index, frame, {"point_coords": coords, "point_labels": torch.tensor([[labels]]).int()})
        return self._run(frame, number)

    def draw(self, frame: int, number: int, mask: Tensor) -> Tensor:
        self.session.add_mask_inputs(self.session.obj_id_to_idx(number), frame, mask)
        return self._run(frame, number)

    def _run(self, frame: int, number: int) -> Tensor:
        self.session.obj_with_new_inputs = [number]
        return self.model(self.session, frame_idx=frame).pred_masks[:, 0]

    def go(self, start: int, reverse: bool = False) -> Iterator[tuple[int, Tensor, Tensor]]:
        for output in self.model.propagate_in_video_iterator(self.session, start_frame_idx=start, reverse=reverse):
            yield output.frame_idx, output.pred_masks[:, 0], output.object_score_logits.flatten()


def logits(tracked: Any) -> Tensor:
    return torch.stack([answer.prediction.distribution.mean[0] for answer in tracked.objects.values()])


@torch.inference_mode()
def test_tracks_equal_transformers_own(video: Any, clip: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="not trained"):
        ours = VideoPredictor(video)
    ours.set_video(clip)
    theirs = Theirs(video, clip)
    first = [theirs.click(0, 1, [[20, 10], [5, 30]], [1, 0]), theirs.click(0, 7, [[45, 25]], [1])]
    ours.add_prompt(0, 1, [[20, 10], [5, 30]], [1, 0])
    torch.testing.assert_close(logits(ours.add_prompt(0, 7, [[45, 25]])), first[1], **CLOSE)
    seen = 0
    for (frame, masks, scores), tracked in zip(theirs.go(0), ours.propagate(0), strict=True):
        assert tracked.frame == frame
        torch.testing.assert_close(logits(tracked), masks, **CLOSE)
        told = [answer.prediction.object_score for answer in tracked.objects.values()]
        torch.testing.assert_close(torch.tensor(told), torch.sigmoid(scores), **CLOSE)
        seen += 1
    assert seen == FRAMES
    # a correction in the middle, propagated from the next frame on, and another way back
    corrected = theirs.click(4, 1, [[30, 20], [10, 10]], [1, 0])
    torch.testing.assert_close(logits(ours.add_prompt(4, 1, [[30, 20], [10, 10]], [1, 0])), corrected, **CLOSE)
    for start, reverse in ((5, False), (3, True)):
        for (_, masks, _), tracked in zip(theirs.go(start, reverse), ours.propagate(start, reverse=reverse), strict=True):
            torch.testing.assert_close(logits(tracked), masks, **CLOSE)


@torch.inference_mode()
def test_a_mask_and_a_box_say_what_they_say_to_transformers(clip: np.ndarray) -> None:
    video = tiny_video("sam2_video")
    with pytest.warns(UserWarning, match="not trained"):
        ours = VideoPredictor(video)
    ours.set_video(clip)
    theirs = Theirs(video, clip)
    mask = np.zeros(SIZE, np.bool_)
    mask[8:32, 15:45] = True
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(mask).float()[None, None], size=(64, 64), mode="bilinear", antialias=True
    )
    theirs.draw(0, 1, (stretched >= 0.5).float())
    theirs.click(0, 2, [[10, 10], [50, 35], [30, 20]], [2, 3, 1])
    ours.add_prompt(0, 1, mask=mask)
    told = ours.add_prompt(0, 2, [[30, 20]], box=[10, 10, 50, 35])
    assert (told.objects[1].prediction.masks[0] == mask).mean() > 0.95
    assert told.objects[1].doubt < 0.1
    for (_, masks, _), tracked in zip(theirs.go(1), ours.propagate(1), strict=True):
        torch.testing.assert_close(logits(tracked), masks, **CLOSE)


@torch.inference_mode()
def test_masks_of_several_objects(video: Any, clip: np.ndarray) -> None:
    """EdgeTAM's of transformers cannot follow an object with a mask beside one with a click: each for itself is what theirs are."""
    with pytest.warns(UserWarning, match="not trained"):
        ours = VideoPredictor(video)
    mask = np.zeros(SIZE, np.bool_)
    mask[8:32, 15:45] = True
    side = ours.image.side
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(mask).float()[None, None], size=(side, side), mode="bilinear", antialias=True
    )
    ours.set_video(clip)
    ours.add_prompt(0, 3, [[45, 25]])
    ours.add_prompt(0, 1, mask=mask)
    together = list(ours.propagate(1))
    alone = {1: Theirs(video, clip), 3: Theirs(video, clip)}
    alone[1].draw(0, 1, (stretched >= 0.5).float())
    alone[3].click(0, 3, [[45, 25]], [1])
    for number, theirs in alone.items():
        for (_, masks, scores), tracked in zip(theirs.go(1), together, strict=True):
            answer = tracked.objects[number].prediction
            # sums of two objects at once are not those of one alone to the last bit, and memory carries that on
            torch.testing.assert_close(answer.distribution.mean, masks, rtol=1e-4, atol=1e-4)
            assert answer.object_score == pytest.approx(float(torch.sigmoid(scores)), abs=1e-4)
    assert "_use_mask_as_output" not in vars(video)  # the model is as it was


def test_the_hash_covers_the_memory(video: Any) -> None:
    with pytest.warns(UserWarning, match="not trained"):
        opened = VideoPredictor(video)
    before = tracker_sha256(opened.image, opened.video)
    assert before != weights_sha256(opened.image)
    assert tracker_sha256(opened.image, None) == weights_sha256(opened.image)
    parameter = next(value for name, value in video.named_parameters() if name.startswith("memory_attention"))
    changed = parameter.data.flatten()[0].item()
    parameter.data.view(-1)[0] += 1
    assert weights_sha256(opened.image) == weights_sha256(VideoPredictor(opened.image).image)
    assert tracker_sha256(opened.image, opened.video) != before
    parameter.data.view(-1)[0] = changed
    assert tracker_sha256(opened.image, opened.video) == before


def with_head(video: Any) -> RuacModel:
    image = RuacModel.around(image_part(video))
    assert isinstance(image.head, ExactHead)
    torch.nn.init.normal_(image.head.surroundings[-1].weight)
    image.config.head_trained = True
    return image.eval()


def test_a_trained_head_of_the_image_model_gives_doubt_and_leaves_the_tracks(clip: np.ndarray, tmp_path: Path) -> None:
    video = tiny_video("sam2_video")
    save_head(with_head(video), tmp_path / "head.safetensors")
    sure, plain = VideoPredictor(video, head=tmp_path / "head.safetensors"), None
    with pytest.warns(UserWarning, match="not trained"):
        plain = VideoPredictor(video)
    tracks = []
    for predictor in (sure, plain):
        predictor.set_video(clip)
        predictor.add_prompt(0, 1, [[20, 10]])
        tracks.append(list(predictor.propagate()))
    answers = [[tracked.objects[1].prediction for tracked in track] for track in tracks]
    for one, other in zip(*answers, strict=True):
        np.testing.assert_allclose(one.low_res_logits, other.low_res_logits, rtol=1e-4, atol=1e-4)
    doubtful, certain = ([answer.distribution.variance.max() > 0 for answer in track] for track in answers)
    assert any(doubtful)
    assert not any(certain)


def track(tracker: MemoryTracker, frames: Any, start: int, stop: int) -> list[Tensor]:
    return [tracker.step(frames, n, False)[1].distribution.mean for n in range(start, stop)]


def many_frames() -> Clip:
    return Clip(np.random.default_rng(1).integers(0, 256, (12, *SIZE, 3), dtype=np.uint8))


def test_a_bounded_memory_gives_the_same_track_and_stays_small() -> None:
    video = tiny_video("sam2_video", num_maskmem=3, max_object_pointers_in_encoder=3)
    image, frames, tracks, held = with_head(video), many_frames(), [], []
    for keep in (None, 0):
        tracker = MemoryTracker(video, image, keep)
        tracker.tell(frames, 0, 1, Prompt([[20, 10]]))
        tracks.append(track(tracker, frames, 1, 12))
        held.append(len(tracker.session.output_dict_per_obj[0]["non_cond_frame_outputs"]))
    assert held == [11, 4]
    for one, other in zip(*tracks, strict=True):
        assert torch.equal(one, other)


def test_a_tracker_that_was_put_down_goes_on_alike() -> None:
    video = tiny_video("sam2_video")
    image, frames = with_head(video), many_frames()
    whole, first, second = (MemoryTracker(video, image, keep=8) for _ in range(3))
    for tracker in (whole, first):
        tracker.tell(frames, 0, 1, Prompt([[20, 10]]))
    expected = track(whole, frames, 1, 12)
    track(first, frames, 1, 6)
    tensors, values = first.state()
    second.restore(load(save(tensors)), values)
    assert all(torch.equal(a, b) for a, b in zip(track(second, frames, 6, 12), expected[5:], strict=True))
    assert torch.equal(second.step(frames, 0, True)[1].distribution.mean, whole.step(frames, 0, True)[1].distribution.mean)


def test_a_video_checkpoint_is_opened_with_its_memory(tmp_path: Path) -> None:
    video = tiny_video("sam2_video")
    video.save_pretrained(tmp_path / "model")
    with pytest.warns(UserWarning, match="not trained"):
        opened = VideoPredictor(tmp_path / "model")
    assert isinstance(opened.video, tr.Sam2VideoModel)
    for name, value in video.state_dict().items():
        assert torch.equal(opened.video.state_dict()[name], value)
