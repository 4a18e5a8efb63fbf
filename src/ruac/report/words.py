"""What the report says about its tables and pictures: how to read them, and what they do not show."""

from __future__ import annotations

from types import MappingProxyType

from ruac.evaluate.baselines import BOX_JITTER, CLICK_JITTER, PROMPTS, SAMPLES
from ruac.evaluate.tta import VIEWS

PLACES = MappingProxyType(
    {
        "image": "all pixels of the image",
        "band": "only the pixels within 2 % of the image diagonal of the object, true or predicted",
    }
)
SHORT_PLACES = MappingProxyType({"image": "whole image", "band": "band around the object"})
EXAMPLES_MISSING = (
    "There are no pictures here, because the report was made without the data. With it and the model it shows, for a few "
    "sets, the image where uncertainty and error agree best and the one where they agree least. To see them, type:"
)
PART = (
    "Neighbours by name may be frames of one video, so that they are no sample of their set: intervals speak for pictures like "
    "these few, not for the sets, and with so few they are somewhat too narrow."
)
UNITS = "In per cent, but for NLL (nats) and cost (times a plain click)."
SEE_WORDS = "What the methods and the measures are, the last section says."
METHOD_WORDS = MappingProxyType(
    {
        "head": "the variance that the model's own head gives every logit, in closed form",
        "plain": "the decoder's own logits taken at their word, without the head",
        "temperature": "plain logits divided by a number that was fitted on other images, one for each number of prompts",
        "tta": f"test-time augmentation: the mean probability of the plain decoder over the image and {len(VIEWS)} views, mirrored "
        "and smaller",
        "prompts": f"the mean probability of the plain decoder over {PROMPTS} prompts moved a little: clicks by {CLICK_JITTER:.0%} of "
        f"the object's size, sides of boxes by {BOX_JITTER:.0%} of theirs",
        "monte_carlo": f"the mean probability of {SAMPLES} draws from the model's own head: what 'head' has in closed form",
        "predicted_iou": "the IoU that the decoder predicts for the mask, as the certainty of all pixels alike, of the background's, "
        "too: what follows from it as an expected IoU is not the number that the decoder predicts",
        "ensemble": "the mean probability of several models or heads; heads of one decoder, whose cost is hardly above plain, are no "
        "deep ensemble",
        "dropout": "Monte Carlo dropout: the mean probability of many answers, each without some of the mask weights; their share was "
        "chosen by the likelihood of held-out labels",
        "laplace": "a normal distribution of the decoder's last weights around those that were trained, as wide as makes held-out "
        "labels likeliest; where that is not wide at all it is plain",
        "evidential": "a Beta distribution of every pixel's probability, from one pass of a network that was trained for it",
    }
)
METHOD_NOTES = ("All of them judge the masks that the model returned with its head; none makes a mask of its own.",)
EQUAL_MASKS = (
    "All methods of one model judge the same masks, those that the model returned with its head: a method differs in what it "
    "says of each pixel's chance to be wrong, not in the mask. Methods of different models judge different masks, with other "
    "errors: compare those by AURC, Brier and NLL, which count the errors too, rather than by AUROC or AUPR, and keep an eye "
    "on J&F."
)
MICRO_NOTES = (
    "Every pixel of a set counts the same here, so that large images count more; sets count the same. In per cent, but for NLL "
    "(nats). ★ best of its column. There are no intervals, because pixels of one image are not independent.",
)
FLATTERED = "The best of several methods is chosen here by the very numbers that are shown, which flatters it a little."
MASK_WORDS = (
    "How good the masks are, before any uncertainty. A simulated person prompts every object and then clicks where the mask "
    "is wrong. Objects are averaged within an image, images within a set, sets within a group.",
)
CURVE_WORDS = (
    "Each set counts the same in every curve. Within a set all pixels are pooled, so that large images count more: the "
    "tables, which are means over images, differ a little.",
)
NOT_DRAWN = "Not in the curves, because their histograms are missing or also count images that not every result has: {}."
GAIN_WORDS = (
    "Plain is the entropy of the decoder's own logits, which costs nothing: a method that is not better is not worth its "
    "time. Each number is the method less plain on the same images, in the units of the tables above, with the 95 % interval "
    "of a paired bootstrap over images. ▲: the interval lies wholly on the better side of zero; ▼: wholly on the worse side. What is "
    "zero as written is neither.",
    "The interval speaks for other images of these very sets. For other sets, look at how many sets agree: p is that of "
    "Wilcoxon's signed-rank test over sets, two-sided, corrected for the number of methods (Holm), left out with fewer than "
    "six sets. It takes the sets for independent, which related ones are not. Neither is corrected for the number of "
    "measures: of twenty intervals without any effect one misses zero.",
)
GAIN_TABLE_NOTES = ("Not shown: how good the method or plain is, and whether the gain is large enough to matter to anybody.",)
PUBLISHED_NOTES = (
    "J&F: mean of IoU and outline quality; higher is better. In brackets: 95 % bootstrap interval of ours over images; the "
    "paper gives none. Not shown: anything about uncertainty, for which the paper gives no table that could stand here.",
)
EXPECTED_WORDS = (
    "From a method's probabilities follows the IoU it expects of the returned mask. Here that is held against the true IoU, "
    "object by object, next to the IoU that the decoder predicts by itself, whatever the method.",
)
PEOPLE_WORDS = (
    "In some sets several people outlined the same objects. The disagreement of a pixel is the share of people in the "
    "minority there. A good uncertainty is large where people disagree, and not only where the model errs. Only sets with "
    "several annotators count.",
)
EXAMPLE_WORDS = (
    "Predicted again with the prompts that the evaluation recorded. Only images with at least 1 % of wrong pixels are shown. The "
    "sets are those with the highest, the middle and the lowest mean AUROC among the sets that have such an image and whose data "
    "was given; of each, the images with the highest and the lowest AUROC among such images; of each image, the object with the "
    "most wrong pixels. Chosen by this rule, not by eye: the extremes of a set are not its typical images.",
)
EXAMPLE_NOTES = (
    "White outline: the truth. Blue clicks (+) are on the object, orange ones (–) on the background, numbered in the order "
    "given; the dashed frame is what the other tiles show. Errors: blue where the object was missed, orange where the mask "
    "is too large. Expected error: how likely the method thinks the label to be wrong, black 0 to bright 50 % and more. "
    "Where errors and bright places coincide, uncertainty and error agree.",
)
PAPER_WORDS = (
    "Models and protocols differ, so that a higher number on either side proves nothing: the paper's models are SAM 2 with "
    "the Hiera-B+ encoder, fine-tuned on MOSE or not; which images, objects and clicks its numbers are of is not known in "
    "every detail. Ours are means over images, after the number of prompts named. 'Bayes' is the paper's Bayesian decoder "
    "without the attack.",
)
AVERAGES_WORDS = (
    "What the paper reports of its own models, each a mean over its 23 domains: for orientation, because no number of this report is "
    "a mean over the same domains."
)
LIMITS = (
    "The simulated person always clicks in the middle of the largest error; people do not. Sets are small samples of their "
    "domains, and which domains there are decides what a mean over them is worth. Intervals tell how the numbers would move "
    "with other images of the same sets, not with other models, seeds of training or domains.",
    "Pixels of one image are not independent, so no test counts pixels. An image without a wrong pixel has no AUROC, AUPR or "
    "Spearman and is left out of those: better masks are judged on fewer images.",
)
RELIABILITY_NOTES = (
    "Pixels are sorted by how likely the method thinks its label to be wrong (to the right: less certain), and each group's "
    "true error rate is drawn. On the dashed line promises are kept; above it the method is too sure, below it too cautious. "
    "The strip says which share of the pixels is there, on a logarithmic scale: what happens far to the right concerns few "
    "pixels. Groups with less than 0.01 % of the pixels are not drawn.",
    "It does not show whether wrong pixels are told from right ones: a method that gives every pixel the mean error rate "
    "lies on the line. There are no intervals, because pixels of one image are not independent.",
)
RISK_NOTES = (
    "From right to left, the least certain pixels are set aside. The lower a curve, the fewer errors are left among those "
    "kept; the dotted line is the perfect order. All methods of one model meet on the right, where everything is kept. The "
    "axis begins where twelve times as many pixels are set aside as are wrong; the area below, from nothing kept to "
    "everything, is AURC.",
    "It does not show calibration: only the order of the pixels counts.",
)
GAIN_NOTES = (
    "Each dot is a set, the large mark the mean over all sets, the black line its 95 % interval for other images of these "
    "sets. Right of the line is better in every panel. The axis is linear up to a tenth of a point and logarithmic beyond: a "
    "far dot is very far.",
    "It does not show how good a method is, only whether it is better than plain.",
)
RANK_NOTES = (
    "Ranked are three measures only, one for each question: does doubt find the errors (AUROC), how much error is left (AURC), is the "
    "doubt of the right size (ECE). The numbers of the other measures are in the CSV file.",
    "On every set the methods are ranked, 1 is best; drawn is each one's mean rank. A bar joins methods whose mean ranks are "
    "closer than the critical difference: these sets do not tell them apart (Nemenyi's test after Friedman's, 5 %).",
    "Ranks do not show by how much a method is better: a thousandth of a point counts like ten. The test takes the sets for "
    "independent, and with few sets it finds little.",
)
