"""The learned attacks: by style, by deformation, and both together, each proposing from the same clean features."""

from __future__ import annotations

from torch import nn

from ruac.attack.batch import AttackedBatch, LabelledBatch, untouched
from ruac.attack.deformation import DeformationAttacker
from ruac.attack.style import StyleAttacker, restyle, statistics_of
from ruac.attack.warp import deform
from ruac.features import ImageFeatures


class StyleAttack(nn.Module):
    """Objects and background in other colours."""

    def __init__(self, channels: int, epsilon: float = 0.3):
        super().__init__()
        self.style = StyleAttacker(channels, epsilon)

    def forward(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        old = statistics_of(batch)
        return restyle(batch, old, self.style(batch, features, old))


class DeformationAttack(nn.Module):
    """Objects bent."""

    def __init__(self, channels: int, epsilon: float = 0.15):
        super().__init__()
        self.deformation = DeformationAttacker(channels, epsilon)

    def forward(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        return deform(untouched(batch), self.deformation(batch, features))


class CooperativeAttack(nn.Module):
    """Both: neither attacker sees what the other has done; the changes follow one another, style first."""

    def __init__(self, channels: int, style_epsilon: float = 0.3, deformation_epsilon: float = 0.15):
        super().__init__()
        self.style = StyleAttacker(channels, style_epsilon)
        self.deformation = DeformationAttacker(channels, deformation_epsilon)

    def forward(self, batch: LabelledBatch, features: ImageFeatures) -> AttackedBatch:
        old = statistics_of(batch)
        new, fields = self.style(batch, features, old), self.deformation(batch, features)
        return deform(restyle(batch, old, new), fields)
