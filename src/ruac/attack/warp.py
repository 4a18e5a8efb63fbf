"""Moving pictures, masks and prompts together.

Each object has a field of its own, a coarse grid of displacements; fields [B, R, 2, h, w] hold those of all regions, (x, y) in input
pixels, zero for the background. Bilinear interpolation of its field says for every place where the content comes from that the object
shows there: q shows q + field(q).

`compose` makes one flow of them, so that a pixel takes its colour and all its labels from one place and they cannot disagree. A
pixel moves as the topmost object that lies there now or did before; the rest of the background stays. Where an object has left a hole,
its own field goes on and pulls the surroundings in. (Filled with the unmoved picture, the hole would show the object itself, be it
labelled as background or as an object that can never shrink.)
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.attack.batch import AttackedBatch
from ruac.attack.layers import topmost
from ruac.features import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NO_POINT, Prompts

# the slopes of a field are at most 2ε: a round multiplies the error by 4ε at worst, by default 0.6, which leaves 0.02 pixels or less
ROUNDS = 10


def compose(fields: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Fields [B, R, 2, h, w] and masks [B, P, S, S] to one flow [B, 2, S, S] and the region [B, S, S] that each pixel moves with."""
    images, layers, side = *fields.shape[:2], masks.shape[-1]
    flows = F.interpolate(fields.flatten(0, 1), size=(side, side), mode="bilinear").unflatten(0, (images, layers))
    with torch.no_grad():
        grids = _grid(flows[:, 1:].flatten(0, 1))
        moved = F.grid_sample(masks.flatten(0, 1)[:, None], grids, padding_mode="zeros", align_corners=False)
        region = topmost(torch.maximum(moved.reshape(masks.shape), masks))
    index = region[:, None, None].expand(-1, 1, 2, -1, -1)
    return flows.gather(1, index)[:, 0], region


def warp(images: Tensor, masks: Tensor, ignore: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images [B, 3, S, S], masks [B, P, S, S] and ignore [B, 1, S, S], each pixel q taken from q + flow(q), bilinearly.

    Beyond the border the image goes on as it ends and there are no objects; what depends by more than 1 % on pixels that
    do not count, or on the outside, does not count either.
    """
    grid = _grid(flow)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    labels = F.grid_sample(torch.cat([masks, 1 - ignore], 1), grid, padding_mode="zeros", align_corners=False)
    # weights that add up to one only almost
    return images.clamp(0, 255), labels[:, :-1].clamp(0, 1), (labels[:, -1:] < 0.99).to(ignore.dtype)


def folded(flow: Tensor) -> Tensor:
    """Share of pixels at which q + flow(q) is mirrored, its Jacobian determinant negative, by forward differences: [B].

    flow: [B, 2, S, S]. The seams count along which a shrinking object has pulled its surroundings in: they are shown twice there.
    """
    right = flow[:, :, :-1, 1:] - flow[:, :, :-1, :-1]
    down = flow[:, :, 1:, :-1] - flow[:, :, :-1, :-1]
    determinant = (1 + right[:, 0]) * (1 + down[:, 1]) - right[:, 1] * down[:, 0]
    return (determinant < 0).float().mean((-2, -1))


@torch.no_grad()
def move_prompts(prompts: Prompts, fields: Tensor, masks: Tensor, moved: Tensor, flow: Tensor) -> Prompts:
    """Prompts after the warp, within the picture. A click follows what it was on: the field of the topmost object there, or nothing on
    the background; where it would then tell a lie about its own object (which has moved over it, or away), the field of that.

    Of a box all four corners move with the field of its object, and the new box is the smallest around them; its two corners are
    neighbours in the list of points. An earlier mask moves with the flow. moved: the masks after the warp; the others as in `compose`,
    and the flow it returned.
    """
    points, labels, side = prompts.points, prompts.labels, masks.shape[-1]
    first, second = (labels == BOX_TOP_LEFT)[..., None], (labels == BOX_BOTTOM_RIGHT)[..., None]
    opposite = torch.where(first, points.roll(-1, 2), torch.where(second, points.roll(1, 2), points))
    below = torch.stack([points[..., 0], opposite[..., 1]], -1)
    beside = torch.stack([opposite[..., 0], points[..., 1]], -1)
    corners = torch.stack([points, below, beside], 3)  # (B, P, N, 3, 2)
    own = torch.arange(1, masks.shape[1] + 1, device=masks.device)[:, None].expand_as(labels)
    on = topmost(masks).flatten(1).gather(1, _index(points, side).flatten(1)).reshape(labels.shape)
    layers = torch.stack([torch.where((first | second)[..., 0], own, on), own], -1)  # (B, P, N, 2)
    both = corners[..., None, :, :].expand(-1, -1, -1, 2, -1, -1)  # (B, P, N, 2, 3, 2)
    followed = follow(both.flatten(1, 4), layers[..., None].expand(both.shape[:-1]).flatten(1), fields, side)
    by_content, by_own = followed.reshape(both.shape).clamp(-0.5, side - 0.5).unbind(3)
    lies = _inside(moved, by_content[:, :, :, 0]) != _inside(masks, points)
    point, below, beside = torch.where(lies[..., None, None], by_own, by_content).unbind(3)
    edges = torch.stack([below[..., 0], beside[..., 1]], -1)
    found = torch.where(first, torch.minimum(point, edges), torch.where(second, torch.maximum(point, edges), point))
    found = torch.where((labels == NO_POINT)[..., None], points, found)
    logits = prompts.mask_logits
    if logits is not None:
        height, width = logits.shape[-2:]
        grid = _grid(F.adaptive_avg_pool2d(flow, (height, width)) * (width / side))
        logits = F.grid_sample(logits, grid.to(logits.dtype), padding_mode="border", align_corners=False)
    return replace(prompts, points=found, mask_logits=logits)


def follow(points: Tensor, layers: Tensor, fields: Tensor, side: int) -> Tensor:
    """Where the content of points [B, M, 2] goes with the regions layers [B, M]: the q with q + field(q) = point, by iteration.

    Where a field folds (4ε > 1) there may be several such q or none, and the result is only somewhere near.
    """
    volume = fields.transpose(1, 2)  # (B, 2, R, h, w): the region is the third coordinate
    sizes = points.new_tensor([side, side, fields.shape[1]])
    found = points
    for _ in range(ROUNDS):
        place = torch.cat([found, layers[..., None].to(found.dtype)], -1)
        place = ((2 * place + 1) / sizes - 1)[:, :, None, None]  # (B, M, 1, 1, 3)
        shift = F.grid_sample(volume, place, padding_mode="border", align_corners=False)[..., 0, 0].mT
        found = points - shift
    return found


def deform(batch: AttackedBatch, fields: Tensor) -> AttackedBatch:
    """The batch with every object moved by its field; fields: [B, P, 2, h, w], without the background's."""
    fields = F.pad(fields * batch.present[..., None, None, None], (0, 0, 0, 0, 0, 0, 1, 0))
    objects = batch.objects
    flow, region = compose(fields, objects)
    images, masks, ignore = warp(batch.images, batch.masks, batch.ignore, flow)
    with torch.no_grad():
        length = flow[:, 0].hypot(flow[:, 1])
        moving = region > 0
        mean = (length * moving).sum((1, 2)) / moving.sum((1, 2)).clamp_min(1)
        measured = {"mean_displacement": mean, "max_displacement": length.amax((1, 2)), "folded": folded(flow)}
    return replace(
        batch,
        images=images,
        masks=masks,
        ignore=ignore,
        prompts=move_prompts(batch.prompts, fields, objects, masks, flow),
        flow=flow,
        magnitudes=batch.magnitudes | measured,
    )


def _index(points: Tensor, side: int) -> Tensor:
    """Of the pixel that a point [..., 2] lies in, in the flattened picture: [...]."""
    x, y = points.round().long().clamp(0, side - 1).unbind(-1)
    return y * side + x


def _inside(masks: Tensor, points: Tensor) -> Tensor:
    """Whether points [B, P, N, 2] lie in the masks [B, P, S, S] of their objects: [B, P, N]."""
    return masks.flatten(2).gather(2, _index(points, masks.shape[-1])) > 0.5


def _grid(flow: Tensor) -> Tensor:
    """A flow [B, 2, S, S] as the grid [B, S, S, 2] of grid_sample without align_corners: pixel 0 has its centre at -1 + 1/S."""
    height, width = flow.shape[-2:]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    return torch.stack([(2 * (x + flow[:, 0]) + 1) / width - 1, (2 * (y + flow[:, 1]) + 1) / height - 1], -1)
