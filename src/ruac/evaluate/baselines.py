"""Uncertainty methods that need no training, to compare a head with: each says how sure it is of the very same masks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ruac.distribution import samples_at_once
from ruac.evaluate.averaging import at_original, chosen_features, mean_logit, plain_logits
from ruac.evaluate.question import Method, Picture, Question, Reading
from ruac.evaluate.tta import tta
from ruac.features import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, DecoderFeatures, Prompts
from ruac.heads import PlainHead

# a temperature by the number of prompts
Temperatures = Mapping[int, float]

PROMPTS = 8  # that are asked in place of the one given
CLICK_JITTER, BOX_JITTER = 0.02, 0.05  # standard deviations, as shares of the object's and of the box's sides
SAMPLES = 20  # what the authors of RUAC draw
DECODED_AT_ONCE = 16  # prompts, to bound memory
LEAST_DOUBT = 1e-4  # a predicted IoU may lie outside 0..1, where it has no logit


def head(picture: Picture) -> Reading:
    """The model's own head, in closed form."""
    return lambda question: question.full.scaled_mean()[0, :, 0]


def plain(picture: Picture) -> Reading:
    """The decoder's logits taken at their word."""
    return lambda question: question.plain.mean[0, :, 0]


def temperature(by_prompts: Temperatures) -> Method:
    """The decoder's logits divided by a temperature, one for each number of prompts; a number without one takes the nearest's.

    `fit_temperature` finds them. One for all would have to serve the doubtful first click and the fifth one alike.
    """

    def read(question: Question) -> Tensor:
        counts = prompts_given(question.prompts)[0].tolist()
        divisors = [by_prompts[min(by_prompts, key=lambda n: (abs(n - count), n))] for count in counts]
        logits = question.plain.mean[0, :, 0]
        return logits / logits.new_tensor(divisors)[:, None, None]

    return lambda picture: read


def jittered_prompts(
    prompts: int = PROMPTS, clicks: float = CLICK_JITTER, boxes: float = BOX_JITTER, at_once: int = DECODED_AT_ONCE
) -> Method:
    """The mean probability of the plain decoder over prompts that a person might have given just as well.

    Every click is moved by a normal number of pixels in x and in y, whose deviation is a share `clicks` of the returned mask's
    width and height (of the image's where the mask is empty); every corner of a box by a share `boxes` of its own sides. Nothing
    leaves the image. The mask of the click before, where there is one, stays. at_once: prompts decoded together.
    """

    def of(picture: Picture) -> Reading:
        model, frame = picture.model, picture.frame

        def read(question: Question) -> Tensor:
            places = _jittered(question, picture, prompts, clicks, boxes)

            def answers() -> Iterator[Tensor]:
                for part in places.split(max(1, at_once // places.shape[1])):
                    asked, token = _copies(question, part)
                    logits = plain_logits(model.decode(picture.features, asked), token)
                    # at their own resolution one copy of the objects at a time
                    for copy in logits.unflatten(0, part.shape[:2]):
                        yield at_original(copy, frame, model.side)

            return mean_logit(answers())

        return read

    return of


def monte_carlo(samples: int = SAMPLES) -> Method:
    """The mean probability of draws from the model's own head: what `head` has in closed form, taking the logits for normal.

    They are drawn on the decoder's grid, independently from pixel to pixel as far as the head has it so, and enlarged as logits:
    between the pixels of the grid neighbouring draws are averaged, so that some of the doubt is lost there.
    """

    def of(picture: Picture) -> Reading:
        model = picture.model
        drawn_from = model.head if model.config.head_trained else PlainHead()

        def draws(chosen: DecoderFeatures, seed: int) -> Iterator[Tensor]:
            generator = torch.Generator(chosen.pixels.device).manual_seed(seed)
            chunk = samples_at_once(chosen.pixels.numel())
            for done in range(0, samples, chunk):
                for draw in drawn_from.sample(chosen, min(chunk, samples - done), generator):
                    yield at_original(draw[0, :, 0], picture.frame, model.side)

        def read(question: Question) -> Tensor:
            chosen = chosen_features(question.decoded, question.token)
            seeds = enumerate(_seeds(question))
            # an object at a time, so that its answer does not depend on who else is asked about
            return torch.cat([mean_logit(draws(chosen.map(lambda v, i=i: v[:, i : i + 1]), seed)) for i, seed in seeds])

        return read

    return of


def predicted_iou(picture: Picture) -> Reading:
    """The IoU that the decoder expects of the returned mask, as the probability that it is right, for all of its pixels alike."""

    def read(question: Question) -> Tensor:
        iou = question.decoded.iou.gather(2, question.token[..., None])[0, :, :, None].float()  # (P, 1, 1)
        sure = torch.logit(iou.clamp(LEAST_DOUBT, 1 - LEAST_DOUBT))
        return torch.where(question.full.mean[0, :, 0] > 0, sure, -sure)

    return read


METHODS: dict[str, Method] = {
    "head": head,
    "plain": plain,
    "tta": tta(),
    "prompts": jittered_prompts(),
    "monte_carlo": monte_carlo(),
    "predicted_iou": predicted_iou,
}
NAMES = (*METHODS, "temperature")


def methods(names: Sequence[str], temperatures: Temperatures | None = None) -> dict[str, Method]:
    """Methods by their names. Raises ValueError for an unknown one, and for a temperature that was not fitted."""
    known = METHODS if temperatures is None else METHODS | {"temperature": temperature(temperatures)}
    for name in names:
        if name not in NAMES:
            raise ValueError(f"no uncertainty method '{name}': choose from {', '.join(NAMES)}")
        if name not in known:
            raise ValueError("the method 'temperature' needs labelled images of its own to be fitted on: give --calibration DIR")
    return {name: known[name] for name in names}


def prompts_given(prompts: Prompts) -> Tensor:
    """How many clicks and boxes there are for each object, [1, P]; a box counts as one."""
    return ((prompts.labels >= BACKGROUND) & (prompts.labels != BOX_BOTTOM_RIGHT)).sum(-1)


def _seeds(question: Question) -> list[int]:
    """One an object: the same whenever its clicks are, whoever else is asked about."""
    return [zlib.crc32(points.float().cpu().numpy().tobytes()) for points in question.prompts.points[0]]


def _jittered(question: Question, picture: Picture, copies: int, clicks: float, boxes: float) -> Tensor:
    """Points [copies, P, N, 2] in input coordinates."""
    points, labels = question.prompts.points[0], question.prompts.labels[0]
    spread = (clicks * _extent(question, picture))[:, None].expand_as(points)
    corner = (labels == BOX_TOP_LEFT) | (labels == BOX_BOTTOM_RIGHT)
    if corner.any():
        # the two corners follow each other
        sides = torch.where((labels == BOX_TOP_LEFT)[..., None], points.roll(-1, -2), points.roll(1, -2)) - points
        spread = torch.where(corner[..., None], boxes * sides.abs(), spread)
    # drawn where every machine draws the same numbers
    shape = copies, *points.shape[1:]
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in _seeds(question)]
    rows, columns = picture.frame.inside
    edge = points.new_tensor([columns, rows]) - 0.5
    return torch.minimum((points + spread * torch.stack(noise, 1).to(points)).clamp_min(-0.5), edge)


def _extent(question: Question, picture: Picture) -> Tensor:
    """Width and height of each returned mask in pixels of the network input, [P, 2]; the image's where the mask is empty."""
    frame, side = picture.frame, picture.model.side
    mask = question.low.crop(frame, side).mean[0, :, 0] > 0
    stride = side / question.low.mean.shape[-1]
    extents = []
    for axis, whole in ((-2, frame.inside[1]), (-1, frame.inside[0])):
        used = mask.any(axis)  # (P, W), then (P, H)
        first, last = used.int().argmax(-1), used.shape[-1] - used.flip(-1).int().argmax(-1)
        extents.append(torch.where(used.any(-1), (last - first) * stride, whole))
    return torch.stack(extents, -1)


def _copies(question: Question, places: Tensor) -> tuple[Prompts, Tensor]:
    """The question's prompts at other places [n, P, N, 2], as n * P objects, and the tokens that answer it: [1, n * P]."""
    n, given = len(places), question.prompts
    mask = given.mask_logits
    asked = Prompts(places.flatten(0, 1)[None], given.labels.repeat(1, n, 1), None if mask is None else mask.repeat(1, n, 1, 1))
    return asked, question.token.repeat(1, n)
