"""`ruac predict`: the same clicks or boxes on one or many photographs; masks, uncertainty and a picture of both on disk.

What needs torch is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ruac.errors import WorkError, one_line
from ruac.writing import require_folder

if TYPE_CHECKING:
    from ruac.calibrate.bounds import Guarantee
    from ruac.calibrate.shift import Traits
    from ruac.output import Origin
    from ruac.predictor import Predictor

Point = tuple[float, float, int]  # x, y, label
Box = tuple[float, float, float, float]  # x0, y0, x1, y1

DEMO_CLICK = "256,230"


@dataclass(frozen=True)
class Told:
    """What is said about one object."""

    points: tuple[Point, ...] = ()
    box: Box | None = None


def predict(
    images: list[Path],
    point: list[str] | None = None,
    box: list[str] | None = None,
    separate: bool = False,
    out: Path = Path("out"),
    model: str = "nano",
    head: Path | None = None,
    device: str = "cpu",
    calibration: Path | None = None,
    alpha: float | None = None,
) -> None:
    """Segment the objects that you point at, with an uncertainty for every pixel.

    Writes <name>.mask.png (0 or 255), <name>.uncertainty.png (16 bits; 65535 is a coin toss), <name>.overlay.png (to look at) and
    <name>.json, where <name> is the image's or, of several objects, the image's with .1, .2 ... after it. With a calibration
    (see ruac calibrate), also <name>.inner.png and <name>.outer.png, the two masks that come with a guarantee.

    Example: ruac predict photo.jpg --point 320,240 --point 40,60,0 --out out

    Args:
        images: Photographs; the same points and boxes are used on all of them.
        point: x,y of a pixel of the object, or x,y,0 of one beside it. Repeat it for more points of the same object.
        box: x0,y0,x1,y1 around the object, the same that the points are on. Without points, repeat it for several objects.
        separate: Make every point an object of its own, and every box.
        out: Folder for the results; made if need be.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...
        calibration: A file that ruac calibrate wrote for that model; calibration.json in the model's folder if left out and
            there is one.
        alpha: The level of the calibration that is used, if it has several; the first if left out.

    Raises:
        ValueError: For prompts that make no sense, and a calibration of another model.
        FileNotFoundError: When there is no such model or calibration.
        WorkError: When some images could not be read or written; all others are done.
    """
    objects = group([parse_point(text) for text in point or []], [parse_box(text) for text in box or []], separate)
    require_folder(out)

    from rich.console import Console
    from rich.progress import track

    from ruac.calibrate.bounds import Guarantee
    from ruac.data.image import ImageError
    from ruac.model import weights_sha256
    from ruac.output import Origin, output_names
    from ruac.predictor import Predictor, PromptError

    predictor = Predictor(model, device, head)
    sha256 = weights_sha256(predictor.model)
    guarantee = Guarantee.of(model, sha256, calibration, alpha)
    out.mkdir(parents=True, exist_ok=True)
    overlays: list[Path] = []
    traits: list[Traits] = []
    failures: list[ValueError | OSError] = []
    several, console = len(images) > 1, Console(stderr=True)
    jobs = list(zip(images, output_names(images), strict=True))
    for image, name in track(jobs, "predicting", console=console, transient=True, disable=not (several and console.is_terminal)):
        try:
            done = _predict_one(predictor, image, objects, out, name, Origin(str(image), model, sha256), guarantee)
            overlays += done.overlays
            traits += [done.traits] if done.traits else []
        except PromptError as error:
            failures.append(PromptError(f"{image}: {error}"))
        except ImageError as error:
            failures.append(error)
        except OSError as error:
            failures.append(OSError(f"{error.filename or image}: {error.strerror or error}"))
    _report(overlays, out)
    if guarantee is not None:
        _warn(guarantee, objects, traits)
    if failures and all(isinstance(error, PromptError) for error in failures) and not overlays:
        raise failures[0]
    if failures:
        heading = [f"{len(failures)} of {len(images)} images failed:"] if several else []
        raise WorkError("\n".join([*heading, *map(one_line, failures)]))


def demo(out: Path = Path("out/demo"), model: str = "nano") -> None:
    """Segment a photograph that comes with matplotlib, to see in seconds what ruac does.

    Example: ruac demo

    Args:
        out: Folder for the results.
        model: nano, a folder, or a hub id (owner/name).
    """
    from matplotlib import cbook

    photograph = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    predict([Path(str(photograph))], point=[DEMO_CLICK], out=out, model=model)


def parse_point(text: str) -> Point:
    """ "x,y" or "x,y,label". Raises ValueError for anything else."""
    try:
        x, y, *label = (float(part) for part in text.split(","))
        (kind,) = label or (1.0,)
    except ValueError:
        raise ValueError(f"--point {text}: expected x,y or x,y,label, such as 320,240 or 320,240,0") from None
    if kind not in (0, 1):
        raise ValueError(f"--point {text}: the label is 1 (on the object) or 0 (beside it)")
    return x, y, int(kind)


def parse_box(text: str) -> Box:
    """ "x0,y0,x1,y1". Raises ValueError for anything else."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--box {text}: expected x0,y0,x1,y1, such as 10,20,200,180") from None
    return x0, y0, x1, y1


def group(points: Sequence[Point], boxes: Sequence[Box], separate: bool) -> list[Told]:
    """Which points and boxes tell of the same object. Raises ValueError where that cannot be known."""
    if not points and not boxes:
        raise ValueError("nothing to segment: say where the object is with --point x,y or --box x0,y0,x1,y1")
    if separate:
        if any(label == 0 for *_, label in points):
            raise ValueError("--separate makes every point an object, so none can have the label 0")
        return [Told(points=(point,)) for point in points] + [Told(box=box) for box in boxes]
    if len(boxes) > 1:
        if points:
            raise ValueError(f"{len(boxes)} boxes and {len(points)} points: which belong together? Give one box, or --separate")
        return [Told(box=box) for box in boxes]
    return [Told(tuple(points), boxes[0] if boxes else None)]


@dataclass(frozen=True)
class _Done:
    """overlays: one an object; traits: of the picture, where there is a calibration to compare them with."""

    overlays: list[Path]
    traits: Traits | None


def _predict_one(
    predictor: Predictor,
    path: Path,
    objects: Sequence[Told],
    out: Path,
    name: str,
    origin: Origin,
    guarantee: Guarantee | None,
) -> _Done:
    """Raises ImageError, PromptError, OSError."""
    from ruac.calibrate.bounds import bounds, tempered
    from ruac.data.image import read_image
    from ruac.output import save
    from ruac.predictor import Prompt

    image = read_image(path)
    predictor.set_image(image)
    prompts = [Prompt.of(told.points, told.box) for told in objects]
    predictions = predictor.predict_many(prompts)
    traits = guarantee.traits_of(image, predictions[0], objects[0].points, objects[0].box) if guarantee else None
    overlays = []
    for number, (prompt, told) in enumerate(zip(prompts, objects, strict=True), start=1):
        full_name = name if len(prompts) == 1 else f"{name}.{number}"
        # taken off the list, so that the maps of one object at a time are held
        prediction, around = predictions.pop(0), None
        if guarantee:
            around = bounds(prediction, guarantee, guarantee.asked_alike(told.points, told.box))
            prediction = tempered(prediction, guarantee.calibration.temperature)
        overlays.append(save(out, full_name, image, prompt, prediction, origin, around)[".overlay.png"])
    return _Done(overlays, traits)


def _warn(guarantee: Guarantee, objects: Sequence[Told], traits: Sequence[Traits]) -> None:
    """Says on stderr what speaks against the guarantee."""
    from ruac.calibrate.shift import compare

    if not all(guarantee.asked_alike(told.points, told.box) for told in objects):
        words = guarantee.calibration.policy.words
        print(f"ruac: warning: the guarantee is for {words}; for other prompts there is none", file=sys.stderr)
    shift = compare(guarantee.calibration.traits, traits)
    if shift and shift.aspects:
        print(
            f"ruac: warning: {shift.words}: the guarantee may not hold for them; calibrate on labelled pictures of this kind",
            file=sys.stderr,
        )


def _report(overlays: Sequence[Path], out: Path) -> None:
    if len(overlays) == 1:
        print(f"look at {overlays[0]}")
    elif overlays:
        print(f"{len(overlays)} masks in {out}; look at {out / '*.overlay.png'}")
