"""The measures of the report: their names in the results and for people, what they say, and what to mind with each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["mask", "pixel", "agreement", "cost"]


@dataclass(frozen=True)
class Measure:
    """name: as the results have it; kind: of the mask (the same for all methods of a run), of the method's pixels, of its expected IoU
    against the true one, or of its time; higher: whether more is better; words: what it is; mind: what it does not show, or when it
    misleads; scale, digits: how it is written, 100 for per cent.
    """

    name: str
    title: str
    kind: Kind
    higher: bool
    words: str
    mind: str
    scale: float = 100.0
    digits: int = 1

    @property
    def sentence(self) -> str:
        unit = ", in per cent" if self.scale == 100 else ""
        return f"{self.title}{unit}: {self.words}; {'higher' if self.higher else 'lower'} is better. Mind: {self.mind}."

    @property
    def arrow(self) -> str:
        return "↑" if self.higher else "↓"

    def write(self, value: float, more: int = 0) -> str:
        """A finite value as it stands in a table, with so many more digits."""
        text = f"{self.scale * value:.{self.digits + more}f}"
        # no minus before zero
        return text.lstrip("-") if float(text) == 0 else text


J_AND_F = Measure(
    "j_and_f",
    "J&F",
    "mask",
    True,
    "mean of the mask's IoU (J) and of how well its outline meets the true one (F)",
    "it says nothing about uncertainty: all methods of one model are judged on the same masks",
)
IOU = Measure(
    "iou",
    "IoU",
    "mask",
    True,
    "overlap of the mask with the truth: intersection over union",
    "it says nothing about uncertainty, and small objects hang on few pixels",
)
DICE = Measure(
    "dice",
    "Dice",
    "mask",
    True,
    "overlap of the mask with the truth: twice the intersection over the sum of both",
    "it orders masks as IoU does",
)
BOUNDARY_F = Measure(
    "boundary_f",
    "F",
    "mask",
    True,
    "how well the mask's outline meets the true one: the second half of J&F",
    "it forgives outlines that are off by a few pixels",
)
PREDICTED_IOU = Measure(
    "predicted_iou",
    "predicted IoU",
    "mask",
    True,
    "the IoU that the decoder predicts for its mask",
    "high says nothing: it is good where it is near the true IoU",
)
AUROC = Measure(
    "auroc",
    "AUROC",
    "pixel",
    True,
    "chance that a wrong pixel is more uncertain than a right one; 50 is guessing",
    "it does not show whether the uncertainty has the right size; over whole images easy background makes it high",
    digits=2,
)
AUPR = Measure(
    "aupr",
    "AUPR",
    "pixel",
    True,
    "how pure the list of the most uncertain pixels is in errors, over all lengths of the list; guessing gives the error rate",
    "it can be compared between models only where their error rates are alike",
    digits=2,
)
AURC = Measure(
    "aurc",
    "AURC",
    "pixel",
    False,
    "mean error rate when only the most certain pixels are kept, over all shares kept",
    "the mask's own errors and their order both count, and it does not show which of the two is good",
    digits=2,
)
EAURC = Measure(
    "eaurc",
    "E-AURC",
    "pixel",
    False,
    "AURC above that of the perfect order of the same errors: what the order alone loses",
    "it does not show calibration",
    digits=2,
)
ECE = Measure(
    "ece",
    "ECE",
    "pixel",
    False,
    "gap between promised and true accuracy, over 15 equally wide bins of confidence",
    "it does not show order: a constant doubt of the right size has no gap; easy background makes it small",
    digits=2,
)
ECE_ADAPTIVE = Measure(
    "ece_adaptive",
    "adaptive ECE",
    "pixel",
    False,
    "the same gap with bins that hold equally many pixels",
    "it does not show order either",
    digits=2,
)
BRIER = Measure(
    "brier",
    "Brier",
    "pixel",
    False,
    "mean squared distance of the probability from the truth: order and calibration together",
    "it does not show which of the two is missing, and the mask's own errors dominate it",
    digits=2,
)
NLL = Measure(
    "nll",
    "NLL",
    "pixel",
    False,
    "mean negative log-likelihood of the truth, in nats; confident mistakes cost most",
    "a few very confident errors can decide it",
    scale=1,
    digits=3,
)
SPEARMAN = Measure(
    "spearman",
    "Spearman",
    "pixel",
    True,
    "rank correlation of uncertainty and error",
    "100 is not within reach: with few errors it stays small even for a perfect order",
    digits=2,
)
PEARSON = Measure(
    "pearson",
    "Pearson",
    "pixel",
    True,
    "linear correlation of uncertainty and error",
    "as for Spearman, and it depends on the scale on which uncertainty is told",
    digits=2,
)
ERROR_RATE = Measure(
    "error_rate",
    "error rate",
    "pixel",
    False,
    "share of wrong pixels",
    "it is of the mask, and the same for all methods of one model",
    digits=2,
)
PAVPU = Measure(
    "pavpu",
    "PAvPU",
    "pixel",
    True,
    "share of small patches that are accurate and certain, or inaccurate and uncertain, over several thresholds",
    "where nearly all patches are accurate, being certain everywhere scores high",
    digits=2,
)
EXPECTED_SPEARMAN = Measure(
    "expected_iou.spearman",
    "expected IoU Spearman",
    "agreement",
    True,
    "rank correlation, over the objects of a set, of the IoU that the method expects of its mask with the true IoU",
    "it does not show whether the expected IoU has the right size; with few objects it says little",
    digits=1,
)
EXPECTED_MAE = Measure(
    "expected_iou.mae",
    "expected IoU error",
    "agreement",
    False,
    "mean distance of expected and true IoU, over the objects of a set",
    "it does not show order: the same guess for every object can have a small error",
    digits=1,
)
EXPECTED_PEARSON = Measure(
    "expected_iou.pearson",
    "expected IoU Pearson",
    "agreement",
    True,
    "linear correlation, over the objects of a set, of the IoU that the method expects of its mask with the true IoU",
    "as for Spearman",
    digits=1,
)
EXPECTED_BIAS = Measure(
    "expected_iou.bias",
    "expected IoU bias",
    "agreement",
    False,
    "mean of expected less true IoU, over the objects of a set: above zero where masks are thought better than they are",
    "nearer to zero is better, not lower; errors of both signs cancel",
    digits=1,
)
HUMAN_SPEARMAN = Measure(
    "human_spearman",
    "Spearman with people",
    "pixel",
    True,
    "rank correlation, over pixels, of the uncertainty with the share of annotators who disagree with the majority",
    "100 is not within reach, because most pixels are beyond dispute; errors that all people share do not show",
    digits=2,
)
HUMAN_PEARSON = Measure(
    "human_pearson",
    "Pearson with people",
    "pixel",
    True,
    "linear correlation, over pixels, of the expected error with the share of annotators who disagree with the majority",
    "as for Spearman",
    digits=2,
)
CLICKS = Measure(
    "noc",
    "NoC",
    "mask",
    False,
    "number of clicks until the mask reaches the IoU after the @; the largest number tried where it never does",
    "it does not show how far from it the masks are that never get there",
    scale=1,
    digits=2,
)
COST = Measure(
    "cost",
    "cost ×",
    "cost",
    False,
    "time of a click with the method over that of a plain click, without encoding the image",
    "it is one measurement on one machine, without an interval",
    scale=1,
    digits=2,
)

MASKS = (J_AND_F, IOU)
PIXELS = (AUROC, AUPR, AURC, EAURC, ECE, ECE_ADAPTIVE, BRIER, NLL, SPEARMAN, PAVPU)
AGREEMENT = (EXPECTED_SPEARMAN, EXPECTED_MAE)
# those of the CSV file that no table has
MORE = (DICE, BOUNDARY_F, PREDICTED_IOU, PEARSON, ERROR_RATE, EXPECTED_PEARSON, EXPECTED_BIAS)
PEOPLE = (HUMAN_SPEARMAN, HUMAN_PEARSON)
RANKED = (AUROC, AURC, ECE)
