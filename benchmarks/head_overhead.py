"""What the uncertainty costs on the SAM 2.1 tiny architecture at 1024 px (random weights: speed does not depend on them).

    python benchmarks/head_overhead.py [--quick] [--full]

Side by side in one run, alternating, medians: a click answered by the plain decoder; by the decoder, the exact head and its analytic
uncertainty; and by transformers' own forward pass from the same embeddings. Then, in rounds of their own because they empty the
processor's caches, the decoder and 20 Monte Carlo passes of the published head, as its authors run it. Exits 1 unless the second
takes at most 1.05 times as long as the first and at most a tenth of the last, with few extra parameters. The ratio comes
from the median of the differences within rounds: a virtual machine's speed wanders.

With --full, at the resolution of a photograph instead: the decoder and the sigmoid of its enlarged logits, against the decoder, the
head and the entropy of its enlarged moments; exits 1 unless the second takes at most 1.10 times as long.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Sam2Config, Sam2Model

from ruac.distribution import MaskDistribution, bernoulli_entropy
from ruac.features import DecoderFeatures, Frame, Prompts
from ruac.heads import PaperHead, PlainHead
from ruac.machine import describe_machine
from ruac.model import RuacModel, channels_last, chosen_token

Answer = Callable[[], MaskDistribution]

PASSES = 20
LARGEST_RATIO, LEAST_GAIN, LARGEST_SHARE = 1.05, 10.0, 0.0064
FULL_RATIO, PHOTOGRAPHS = 1.10, ((1024, 1024), (2000, 1500))  # the target is for the first; height, width


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under 50 s")
    parser.add_argument("--full", action="store_true", help="at the resolution of a photograph")
    options = parser.parse_args()
    rounds = 30 if options.quick else 100

    torch.manual_seed(0)
    model = channels_last(RuacModel.around(Sam2Model(Sam2Config()).eval()))
    model.config.head_trained = True
    plain, paper = PlainHead(), PaperHead(model.family.channels, model.family.token_width)
    click = Prompts(torch.tensor([[[[400.0, 500.0]]]]), torch.tensor([[[1]]]))
    with torch.inference_mode():
        image = model.encode(torch.randint(0, 256, (1, 3, model.side, model.side)).float(), ())

        def decode() -> DecoderFeatures:
            features = model.decode(image, click)
            return features.select(chosen_token(features, click, model.stability))

        def sampled() -> Tensor:
            features = decode()
            probability = sum(torch.sigmoid(paper.sample(features, 1)[0]) for _ in range(PASSES))
            return bernoulli_entropy(torch.logit(torch.as_tensor(probability) / PASSES))

        if options.full:
            return full(lambda: plain(decode()), lambda: model(decode()), model.side, rounds)
        ways: dict[str, Callable[[], object]] = {
            "plain": lambda: plain(decode()).mean,
            "exact": lambda: model(decode()).entropy(),
            "transformers": lambda: model.sam(
                image_embeddings=list(image.levels), input_points=click.points, input_labels=click.labels
            ),
        }
        taken = _alternate(ways, rounds)
        taken |= _alternate({"monte_carlo": sampled}, max(30, rounds // 10))
        chosen = decode()
        taken |= _alternate({"plain_head": lambda: plain(chosen).mean, "exact_head": lambda: model(chosen).entropy()}, rounds)
    milliseconds = {name: statistics.median(values) for name, values in taken.items()}
    more = statistics.median(b - a for a, b in zip(taken["plain"], taken["exact"], strict=True))

    encoder = sum(p.numel() for p in model.sam.vision_encoder.parameters())
    extra = sum(p.numel() for p in model.head.parameters())
    figures = {
        "milliseconds": {name: round(value, 2) for name, value in milliseconds.items()},
        "ratio": round(1 + more / milliseconds["plain"], 4),
        "largest_ratio": LARGEST_RATIO,
        "ratio_to_transformers": round(milliseconds["exact"] / milliseconds["transformers"], 4),
        "cheaper_than_monte_carlo": milliseconds["monte_carlo"] / milliseconds["exact"],
        "least_gain": LEAST_GAIN,
        "extra_parameters": extra,
        "share_of_encoder": extra / encoder,
        "largest_share": LARGEST_SHARE,
        "rounds": rounds,
        "machine": describe_machine(),
    }
    figures["ok"] = bool(
        figures["ratio"] <= LARGEST_RATIO
        and figures["cheaper_than_monte_carlo"] >= LEAST_GAIN
        and figures["share_of_encoder"] <= LARGEST_SHARE
    )
    print(json.dumps(figures))
    return 0 if figures["ok"] else 1


def enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., H, W] at another size."""
    return F.interpolate(logits.flatten(0, -4), size=size, mode="bilinear", align_corners=False)


def full(plain: Answer, exact: Answer, side: int, rounds: int) -> int:
    """The exit code; plain, exact: a click answered without and with the head, on the decoder's grid."""
    figures: dict[str, object] = {}
    ratios = []
    for original in PHOTOGRAPHS:
        frame = Frame(original, (side, side))
        # SAM enlarges its logits alone: a variance of zero need not be
        ways: dict[str, Callable[[], object]] = {
            "plain": lambda frame=frame: torch.sigmoid(enlarged(plain().mean, frame.original)),
            "exact": lambda frame=frame: exact().resize(frame, side).entropy(),
        }
        taken = _alternate(ways, rounds)
        more = statistics.median(b - a for a, b in zip(taken["plain"], taken["exact"], strict=True))
        ratios.append(1 + more / statistics.median(taken["plain"]))
        milliseconds = {name: round(statistics.median(values), 2) for name, values in taken.items()}
        figures["x".join(map(str, original))] = {"milliseconds": milliseconds, "ratio": round(ratios[-1], 4)}
    ok = ratios[0] <= FULL_RATIO
    print(json.dumps({"full": figures, "largest_ratio": FULL_RATIO, "rounds": rounds, "machine": describe_machine(), "ok": ok}))
    return 0 if ok else 1


def _alternate(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, measured in turn so that a busy moment of the machine hits all alike."""
    for way in ways.values():
        for _ in range(3):
            way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(1000 * (time.perf_counter() - start))
    return taken


if __name__ == "__main__":
    sys.exit(main())
