"""What the paper reports, to stand next to our own numbers. Nothing here was measured by this package."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

SOURCE = "Segment Anything with Robust Uncertainty-Accuracy Correlation, arXiv 2605.10603, as retold in this project's notes"
# only results of this suite follow the paper's protocol closely enough to stand beside its numbers
SUITE = "sa23-ruac"
DOMAINS = 23


@dataclass(frozen=True)
class Published:
    """J&F in per cent on one domain: SAM 2 as released, fine-tuned, fine-tuned with a Bayesian head (UE alone), and RUAC."""

    sam2: float
    fine_tuned: float
    bayes: float
    ruac: float


BY_DOMAIN = MappingProxyType(
    {
        "TrashCan": Published(44.9, 72.4, 74.9, 74.4),
        "LVIS": Published(75.2, 75.9, 75.1, 74.8),
        "Cityscapes": Published(64.2, 65.1, 55.4, 64.2),
        "Hypersim": Published(46.7, 54.6, 57.5, 61.8),
        "IBD": Published(80.9, 88.9, 90.3, 90.2),
        "EgoHOS": Published(84.0, 86.3, 90.4, 91.3),
    }
)
# mean J&F in per cent over the paper's 23 domains
AVERAGES = MappingProxyType(
    {
        "SAM 2": 67.75,
        "SAM 2, fine-tuned": 79.75,
        "LoRA": 79.13,
        "UR-ERN (evidential)": 73.40,
        "UE (Bayesian head) alone": 79.87,
        "UE + random noise": 80.81,
    }
)


def published(domain: str) -> Published | None:
    """The row of a domain by its name, whatever its case and punctuation; None where there is none."""
    rows = {_plain(name): row for name, row in BY_DOMAIN.items()}
    return rows.get(_plain(domain))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
