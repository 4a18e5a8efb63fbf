"""`ruac calibrate`: labelled pictures in, thresholds with a guarantee and a temperature out.

What needs torch is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ruac.errors import WorkError

if TYPE_CHECKING:
    from ruac.calibrate.file import Calibration


def calibrate(
    data: list[Path],
    model: str = "nano",
    alpha: list[float] | None = None,
    out: Path | None = None,
    prompt: Literal["point", "box"] = "point",
    max_objects: int = 10,
    max_images: int | None = None,
    seed: int = 0,
    head: Path | None = None,
    device: str = "cpu",
) -> None:
    """Find, on labelled pictures of your kind, two masks around the predicted one that come with a guarantee.

    The outer mask misses at most a share alpha of an object; the wrong pixels of the inner mask are at most a share alpha of
    the object's size. Both hold on average over pictures like these that are prompted alike, not for every single one
    (conformal risk control). A temperature for the probabilities is fitted, too. 50 to 200 pictures are good to have. `ruac
    predict` and `ruac label` use the file by themselves when it lies in the model's folder, else with --calibration, and warn
    when their pictures are of another kind.

    Example: ruac calibrate --data my_set --model runs/nano/model --alpha 0.05 0.1 --prompt box

    Args:
        data: Data sets (folders with images/ and masks/), or folders of them; pictures that the model was not trained on.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        alpha: Largest expected loss of either mask; several give several pairs of thresholds. 0.1 if left out.
        out: File for the result; calibration.json in the model's folder if left out.
        prompt: How objects are pointed at, here and later: one click at the centre, or a box with sides moved by up to a tenth.
        max_objects: Objects of a picture that are prompted, at most.
        max_images: Only so many images of each set, the first by name.
        seed: Draws objects and boxes.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...

    Raises:
        ValueError: For settings that make no sense, and an alpha that takes more pictures.
        FileNotFoundError: When there is no data or no model.
        WorkError: At the end, when there were pictures that could not be read.
    """
    alphas = tuple(dict.fromkeys(alpha or [0.1]))
    file = place(out, model, head)
    for name, value in (("max-objects", max_objects), ("max-images", max_images)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if seed < 0:
        raise ValueError(f"--seed must not be negative, as {seed} is")

    from rich.console import Console
    from rich.progress import track

    from ruac.calibrate.file import Calibration
    from ruac.calibrate.measure import survey
    from ruac.calibrate.policy import Policy
    from ruac.calibrate.risk import check_alpha, choose
    from ruac.data.folder import find_sets
    from ruac.model import weights_sha256
    from ruac.predictor import Predictor

    chosen = {part.name: part.samples[:max_images] for part in find_sets(data)}
    samples = [sample for part in chosen.values() for sample in part]
    for share in alphas:
        check_alpha(share, len(samples))
    predictor, policy = Predictor(model, device, head), Policy(prompt, max_objects, seed)
    console = Console(stderr=True)
    found = survey(
        predictor, track(samples, "calibrating", console=console, transient=True, disable=not console.is_terminal), policy
    )
    for share in alphas:
        check_alpha(share, found.measured.images)
    calibration = Calibration(
        model=model,
        model_sha256=weights_sha256(predictor.model),
        sets={name: len(part) for name, part in chosen.items()},
        fingerprint=found.fingerprint,
        images=found.measured.images,
        objects=found.measured.objects,
        policy=policy,
        temperature=found.measured.temperature,
        levels=tuple(choose(found.measured.losses, share) for share in alphas),
        traits=found.measured.traits,
    )
    calibration.write(file)
    _report(calibration, found.empty, file)
    if found.failed:
        raise WorkError("\n".join([f"{len(found.failed)} of {len(samples)} images could not be read:", *found.failed]))


def place(out: Path | None, model: str, head: Path | None) -> Path:
    """The file to write. Raises ValueError where the model has no folder of its own, or the calibration would not be of that
    model alone."""
    from ruac.calibrate.file import FILE

    if out is not None:
        return out / FILE if out.is_dir() else out
    if not Path(model).is_dir():
        raise ValueError(f"--out is needed: the model '{model}' has no folder to put {FILE} in")
    if head is not None:
        raise ValueError(f"--out is needed with --head: {FILE} in {model} would be for the model with its own head")
    return Path(model) / FILE


def _report(calibration: Calibration, empty: int, file: Path) -> None:
    left = f", {empty} without an object left out" if empty else ""
    print(f"{calibration.images} images, {calibration.objects} objects{left}; temperature {calibration.temperature:.3g}")
    for level in calibration.levels:
        print(
            f"alpha {level.alpha:g}: outer mask from logit {level.outer.logit:.3g}, {level.outer.size:.2f} times the object, "
            f"misses {100 * level.outer.risk:.1f} % here; inner mask from logit {level.inner.logit:.3g}, {level.inner.size:.2f} times "
            f"the object, {100 * level.inner.risk:.1f} % wrong here"
        )
    print(f"Calibration: {file}")
