"""Tracking with the memory of transformers' video models: SAM 2, SAM 3's tracker, EdgeTAM.

Their own code does the tracking, frame by frame, and is not changed: masks, memories and object pointers are theirs. The uncertainty
is read beside it, from what their mask decoder sees, and nothing of it goes into the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.distribution import MaskDistribution
from ruac.families.inputs import normalise
from ruac.features import BOX_TOP_LEFT, DecoderFeatures, Frame
from ruac.model import RuacModel
from ruac.predictor import Prediction, Prompt, parse
from ruac.quality.expected import Quality
from ruac.regions import Mask
from ruac.video.frames import Frames
from ruac.video.recorder import recording
from ruac.video.tracker import check_mask, given, pack, unpack
from ruac.video.trust import Signs

# what the video models give for every pixel where they see no object
NO_OBJECT = -1024.0
COND, TRACKED = "cond_frame_outputs", "non_cond_frame_outputs"
# of a frame's outputs, what later frames look at; the rest is larger than all of these
REMEMBERED = ("maskmem_features", "maskmem_pos_enc", "object_pointer", "object_score_logits", "pred_masks")


class MemoryTracker:
    """video: a model of transformers'; image: the same weights as a model that decodes single images, with the head.

    keep: how many frames around the current one stay in memory, besides those with prompts; None for all, so that corrections are
    made in the light of what was seen around them. Fewer than the model looks back, `reach`, are not possible.
    """

    def __init__(self, video: Any, image: RuacModel, keep: int | None = None):
        self.video, self.image = video, image
        self.reach: int = max(video.config.num_maskmem, video.config.max_object_pointers_in_encoder)
        self.keep = None if keep is None else max(keep, self.reach)
        self.quality = Quality.of(image.config.quality)
        kind = type(video)
        session = kind.__name__.removesuffix("Model") + "InferenceSession"
        self.session = getattr(import_module(kind.__module__), session)(
            inference_device=image.device, inference_state_device=image.device, dtype=video.dtype
        )
        self._told: dict[tuple[int, int], Prediction] = {}
        self.signs: dict[int, Signs] = {}  # the object score says it

    @property
    def objects(self) -> tuple[int, ...]:
        return tuple(self.session.obj_ids)

    def tell(self, frames: Frames, frame: int, number: int, said: Prompt | Mask) -> dict[int, Prediction]:
        where = self._where(frames)
        inputs = self._mask(said, frames) if isinstance(said, np.ndarray) else self._words(said, where)
        index = self.session.obj_id_to_idx(number)
        self._told.pop((index, frame), None)
        if isinstance(inputs, Tensor):
            self.session.remove_point_inputs(index, frame)
            self.session.add_mask_inputs(index, frame, inputs)
        else:
            self.session.remove_mask_inputs(index, frame)
            self.session.add_point_inputs(index, frame, inputs)
        self.session.obj_with_new_inputs = [number]
        return self.step(frames, frame, reverse=False)

    @torch.inference_mode()
    def step(self, frames: Frames, frame: int, reverse: bool) -> dict[int, Prediction]:
        session, where = self.session, self._where(frames)
        session.processed_frames = _Prepared(self.image, frames)
        outputs = session.output_dict_per_obj
        new = [i for i, number in enumerate(self.objects) if number in session.obj_with_new_inputs]
        asked = [i for i in range(len(self.objects)) if i in new or frame not in outputs[i][COND]]
        # left to itself, the model would track a corrected frame again and forget the correction
        corrected = {
            i: outputs[i][TRACKED][frame]
            for i in asked
            if i not in new and (i, frame) in self._told and frame in outputs[i][TRACKED]
        }
        answers = {i: self._told[i, frame] for i in range(len(self.objects)) if (i, frame) in self._told and i not in new}
        if len(answers) < len(self.objects):
            with recording(self.video.mask_decoder, self.image.stability) as passes, scores_of_one_shape(self.video):
                output = self.video(session, frame_idx=frame, reverse=reverse)
            for i, features in zip(asked, passes, strict=True):
                if i in new and frame in session.mask_inputs_per_obj[i]:
                    answers[i] = given(output.pred_masks[i, 0], where, self.image.side, self.quality)
                elif i not in answers:
                    answers[i] = self._read(features, where)
            self._told |= {(i, frame): answers[i] for i in new}
            for i, kept in corrected.items():
                outputs[i][TRACKED][frame] = kept
        self._forget(frame)
        return {number: answers[i] for i, number in enumerate(self.objects)}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            f"{i}/{kind}/{frame}/{name}": found[name].contiguous().clone()
            for i, outputs in self.session.output_dict_per_obj.items()
            for kind, of_frames in outputs.items()
            for frame, found in of_frames.items()
            for name in REMEMBERED
        }
        return tensors | pack(self._told), {"objects": list(self.objects)}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        for number in values["objects"]:
            self.session.obj_id_to_idx(number)
        self._told = unpack(tensors, self.image.side, self.quality)
        for key, value in tensors.items():
            if key.startswith("told/"):
                continue
            i, kind, frame, name = key.split("/")
            self.session.output_dict_per_obj[int(i)][kind].setdefault(int(frame), {})[name] = value.to(self.image.device)
            if kind == TRACKED:
                self.session.frames_tracked_per_obj[int(i)][int(frame)] = {"reverse": False}

    def _where(self, frames: Frames) -> Frame:
        return Frame(frames.size, (self.image.side, self.image.side))

    def _words(self, prompt: Prompt, where: Frame) -> dict[str, Tensor]:
        words = parse(prompt, where, self.image.grid)
        # a box comes before the points, as in training
        order = (words.labels[0, 0] < BOX_TOP_LEFT).long().argsort(stable=True)
        return {"point_coords": words.points[:, :, order].to(self.video.dtype), "point_labels": words.labels[:, :, order].int()}

    def _mask(self, mask: Mask, frames: Frames) -> Tensor:
        check_mask(mask, frames.size)
        whole = torch.from_numpy(mask).float()[None, None]
        stretched = F.interpolate(whole, size=(self.image.side,) * 2, mode="bilinear", align_corners=False, antialias=True)
        return (stretched >= 0.5).float()

    def _read(self, features: DecoderFeatures, where: Frame) -> Prediction:
        """The head's answer, as one object of one image."""
        distribution = self.image(features).map(lambda values: values[0, 0].float().cpu())
        assert features.object_logit is not None
        logit, iou = features.object_logit[0, 0].float(), features.iou[0, 0].float().cpu().numpy()
        if logit <= 0:
            mean = torch.full_like(distribution.mean, NO_OBJECT)
            distribution = MaskDistribution(mean, torch.zeros_like(mean))
        return Prediction(distribution, where, self.image.side, iou, float(torch.sigmoid(logit)), quality=self.quality)

    def _forget(self, frame: int) -> None:
        """Drop what no later frame looks at."""
        for i, outputs in self.session.output_dict_per_obj.items():
            for found in (*outputs[COND].values(), *outputs[TRACKED].values()):
                found.pop("high_res_masks", None)
            if self.keep is not None:
                for far in [n for n in outputs[TRACKED] if abs(n - frame) > self.keep]:
                    # a click there begins anew, as on a frame never seen
                    del outputs[TRACKED][far]
                    self.session.frames_tracked_per_obj[i].pop(far, None)


@contextmanager
def scores_of_one_shape(video: Any) -> Iterator[None]:
    """While it lasts, the object score of a mask that was given is [1, 1, 1], as that of every other object.

    EdgeTAM's own is [1, 1], and transformers cannot join the two. The number stays what it is.
    """
    own = video._use_mask_as_output

    def shaped(*inputs: Any, **more: Any) -> Any:
        output = own(*inputs, **more)
        output.object_score_logits = output.object_score_logits.reshape(-1, 1, 1)
        return output

    video._use_mask_as_output = shaped
    try:
        yield
    finally:
        del video._use_mask_as_output


class _Prepared:
    """In place of the tensors of all frames, those that are asked for, made ready for the network."""

    def __init__(self, image: RuacModel, frames: Frames):
        self._image, self._frames = image, frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, frame: int) -> Tensor:
        family: Any = self._image.family
        prepared, _ = family.prepare(torch.from_numpy(self._frames[frame]).permute(2, 0, 1))
        return normalise(prepared.to(self._image.device), family.mean, family.spread, family.sam.dtype)
