"""The objects of a picture as a graph, over which the styles of neighbours come to agree."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.attack.layers import regions

# objects are neighbours whose masks come within two cells of this grid, 1/32 of the picture's side, of each other
GRID = 64
SIMILAR = 0.5  # cosine of the features above which two objects are neighbours wherever they are
RESIDUAL = 0.1


@torch.no_grad()
def neighbours(masks: Tensor, looks: Tensor, present: Tensor) -> Tensor:
    """Adjacency of the background and the objects of every image, each row divided by its sum: [B, R, R].

    masks: [B, P, S, S]; looks: [B, R, D] features of the regions; present: [B, P]. Two regions are joined that overlap, that come
    close or that look alike; every one is joined to itself. Nothing is joined across images or to an object that is not there: one
    pass over all matrices is one over the block-diagonal graph of the batch.
    """
    cells = min(GRID, masks.shape[-1])
    there = F.adaptive_max_pool2d((regions(masks) > 0.5).float(), cells)
    # both grown by a cell, so that they meet across two; an overlap of the masks themselves is one of these too
    grown = F.max_pool2d(there, 3, stride=1, padding=1).flatten(2)
    close = grown @ grown.mT > 0
    direction = F.normalize(looks.float(), dim=-1)
    alike = direction @ direction.mT > SIMILAR
    real = F.pad(present, (1, 0), value=True)
    joined = (close | alike) & real[:, :, None] & real[:, None, :]
    joined = joined | torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
    return joined / joined.sum(-1, keepdim=True)


class StyleGraph(nn.Module):
    """Two graph convolutions over nodes of 6 style numbers and 6 of what the region looks like."""

    STYLE, VISUAL = 6, 6

    def __init__(self, channels: int, dropout: float = 0.1):
        super().__init__()
        width = self.STYLE + self.VISUAL
        self.visual = nn.Linear(channels, self.VISUAL)
        self.first = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(width, self.STYLE)
        # like the proposals it corrects, it starts close to nothing
        nn.init.normal_(self.second.weight, std=0.01)
        nn.init.zeros_(self.second.bias)

    def forward(self, styles: Tensor, looks: Tensor, adjacency: Tensor) -> Tensor:
        """Styles [B, R, 6] corrected by their neighbours', given what regions look like, [B, R, D], and `neighbours` [B, R, R]."""
        nodes = self.first(torch.cat([styles, self.visual(looks)], -1))
        nodes = self.dropout(F.relu(self.norm(adjacency @ nodes)))
        return styles + RESIDUAL * (adjacency @ self.second(nodes))
