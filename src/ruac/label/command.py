"""`ruac label`: masks for a folder of images, and a queue of those that a person should look at.

What needs torch is imported by the functions that use it, so that help and misspelt commands are answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ruac.errors import WorkError
from ruac.label.budget import Budget, Plan, parse_budget, plan
from ruac.label.images import Images, find_images
from ruac.label.prompts import Category, Task, match, read_prompts
from ruac.writing import only_writer, require_folder, write_whole

if TYPE_CHECKING:
    from ruac.calibrate.bounds import Guarantee
    from ruac.everything import Search
    from ruac.label.part import Folder, Part
    from ruac.predictor import Predictor


ENGINES = ("threads", "ray")


@dataclass(frozen=True)
class Calibrated:
    """What a calibration has to say of all labels. info: for labels.json; guarantee, warning: in words, empty without one."""

    info: Mapping[str, Any] = field(default_factory=dict)
    guarantee: str = ""
    warning: str = ""


def label(
    images: list[str],
    prompts: Path | None = None,
    everything: bool = False,
    out: Path = Path("labels"),
    budget: str = "10%",
    grid: int = 16,
    crops: int = 0,
    least: float = 0.7,
    no_parts: bool = False,
    model: str = "nano",
    head: Path | None = None,
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    calibration: Path | None = None,
    alpha: float | None = None,
    engine: str = "threads",
    workers: int | None = None,
) -> None:
    """Label many images, and learn which of the masks to check.

    Writes <out>/labels.json (COCO: run lengths, boxes, predicted and expected IoU, mean uncertainty), <out>/masks/<name>.png (0
    background, 1, 2 ... the objects of the image), <out>/review.csv and <out>/review.html, which begin with the lowest expected
    IoU. The page works offline; what you accept and reject there can be exported. A run that was stopped goes on where it was.
    With a calibration (see ruac calibrate), labels.json has two more masks of each object, inner and outer, that come with a
    guarantee. All pictures together are compared with the calibration's, and a warning says where they are of another kind.

    Example: ruac label photos --prompts boxes.json --budget 10% --out labels

    Args:
        images: Files, folders (with the folders in them), patterns such as 'photos/*.jpg', and text files (.txt) with a path or a URL
            a line. In object stores (s3://, gs://, az:// ...) a folder has / at its end, as in s3://bucket/photos/, and what a URL
            names is taken to stay what it is.
        prompts: What to segment. JSON {"a.jpg": [{"box": [x0, y0, x1, y1], "points": [[x, y, 1]], "label": "cat"}]}; or CSV with the
            columns image, x, y and maybe label (1 on the object, 0 beside it), object and category; or COCO, whose boxes are used.
        everything: Look for objects instead, with a grid of clicks.
        out: Folder for the results; made if need be.
        budget: How many masks a person can look at: a number such as 25, or a share of all with a per-cent sign.
        grid: With --everything, clicks along the longer side of a picture; more find smaller objects and take longer.
        crops: With --everything, 1 looks at 4 crops of each picture, too, 2 at 16 more; each takes as long as a picture.
        least: With --everything, the lowest expected IoU of a mask that is kept.
        no_parts: With --everything, leave out an object that lies within another one, or the other one: whichever is less certain.
        model: nano, a folder or a hub id (owner/name) of RUAC or of any SAM, or a file of original SAM 2 weights.
        head: A head trained for that model, as a file.
        device: cpu, cuda, mps ...
        precision: fp32, or bf16, which GPUs are faster with; a calibration holds for the precision that it was made in, fp32.
        calibration: A file that ruac calibrate wrote for that model; calibration.json in the model's folder if left out and
            there is one.
        alpha: The level of the calibration that is used, if it has several; the first if left out.
        engine: threads, on this machine, or ray, on the cluster that RAY_ADDRESS names (without it, one process a core of this
            machine). The results are the same, and either goes on with what the other has begun.
        workers: Images that are worked on at a time; if left out, with threads as many as there are cores but at most 8, with ray as
            many as there are cores or GPUs in the cluster.

    Raises:
        ValueError: For prompts that make no sense, a folder with results of other settings or that another process writes to, and a
            calibration of another model.
        FileNotFoundError: When there is no such model, calibration or file of prompts.
        WorkError: When some images could not be read or written; all others are done.
    """
    if everything == (prompts is not None):
        raise ValueError("say what to segment: either --prompts FILE or --everything")
    if engine not in ENGINES:
        raise ValueError(f"--engine {engine}: {' or '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers}: at least 1")
    limit = parse_budget(budget)
    require_folder(out)
    found = find_images(images, out)
    if prompts is None:
        tasks, told = [Task(image, (), None) for image in found.files], None
    else:
        told = read_prompts(prompts)
        tasks = match(told, found.files)

    from ruac.calibrate.bounds import Guarantee
    from ruac.everything import Search
    from ruac.label.lanes import in_lanes
    from ruac.label.make import EVERYTHING, Job, Maker
    from ruac.label.part import open_folder
    from ruac.label.ray_engine import Recipe, on_ray
    from ruac.label.run import label_images, part_of
    from ruac.model import weights_sha256
    from ruac.output import output_names
    from ruac.predictor import Predictor

    search = Search(grid, crops, least, parts=not no_parts) if everything else None
    categories = told.categories if told else (EVERYTHING,)
    # the workers of a cluster load it themselves
    predictor = Predictor(model, device if engine == "threads" else "cpu", head, precision=precision)
    sha256 = weights_sha256(predictor.model)
    guarantee = Guarantee.of(model, sha256, calibration, alpha)
    settings = _settings(predictor, sha256, search, guarantee)
    with only_writer(out):
        folder = open_folder(out, settings)
        jobs = [
            Job(name, task) for name, task in zip(output_names([Path(task.image.name) for task in tasks]), tasks, strict=True)
        ]
        if engine == "ray":
            recipe = Recipe(model, head, device, precision, sha256, search, guarantee)
            failed = label_images(lambda left: on_ray(recipe, left, workers), jobs, folder)
        else:
            maker = Maker(predictor, search, guarantee)
            failed = label_images(lambda left: in_lanes(maker, left, workers), jobs, folder)
        # thumbnails are most of what parts hold, and only those of the worst masks are wanted in the end
        parts = [part.without_thumbnails() for job in jobs if (part := part_of(job, folder))]
        said = _calibrated(guarantee, parts) if guarantee else Calibrated()
        chosen = _assemble(folder, parts, categories, limit, {"model": model, **settings}, said)
    _report(chosen, found, tasks, prompts, out)
    if said.warning:
        print(f"ruac: warning: {said.warning}", file=sys.stderr)
    if failed:
        heading = [f"{len(failed)} of {len(jobs)} images failed:"] if len(jobs) > 1 else []
        raise WorkError("\n".join([*heading, *(" ".join(line.split()) for line in failed)]))


def _settings(predictor: Predictor, sha256: str, search: Search | None, guarantee: Guarantee | None) -> dict[str, Any]:
    """All that the masks depend on, beside the images and what is wanted of each."""
    from dataclasses import asdict
    from importlib.metadata import version

    return {
        "ruac": version("ruac"),
        "model_sha256": sha256,
        "quality": predictor.model.config.quality,
        "everything": None if search is None else asdict(search),
        "calibration": guarantee and guarantee.name,
    }


def _calibrated(guarantee: Guarantee, parts: Sequence[Part]) -> Calibrated:
    from ruac.label import likeness, promise

    shift = likeness.shift_of(guarantee.calibration, parts)
    info = {
        "guarantee": promise.describe(guarantee, parts),
        "shift": likeness.describe(guarantee.calibration, len(parts), shift),
    }
    return Calibrated(info, promise.words(guarantee, parts), likeness.warning(shift))


def _assemble(
    folder: Folder,
    parts: Sequence[Part],
    categories: Sequence[Category],
    limit: Budget,
    info: dict[str, Any],
    calibrated: Calibrated,
) -> Plan | None:
    """Everything that is made of the parts: masks that are missing, labels.json and the queue. None when no image is done."""
    from ruac.label.coco import index_png, labels_json
    from ruac.label.review import MOST_SHOWN, queue, review_csv, review_html, with_thumbnails

    if not parts:
        return None
    for part in parts:
        if not folder.mask_path(part.name).is_file():
            write_whole(folder.mask_path(part.name), index_png(part))
    chosen = plan([label.expected_iou for part in parts for label in part.labels], limit)
    items = queue(parts, {category.id: category.name for category in categories}, chosen)
    review = [item.review for item in sorted(items, key=lambda item: item.annotation)]
    info = {"description": "masks by ruac label", **info, **calibrated.info, "review": chosen.summary()}
    write_whole(folder.out / "labels.json", labels_json(parts, categories, review, info))
    write_whole(folder.out / "review.csv", review_csv(items))
    shown = with_thumbnails(items[:MOST_SHOWN], parts, folder)
    names = [category.name for category in categories]
    page = review_html(shown, chosen, len(parts), names, info["model_sha256"][:16], calibrated.guarantee, calibrated.warning)
    write_whole(folder.out / "review.html", page)
    return chosen


def _report(chosen: Plan | None, found: Images, tasks: Sequence[Task], prompts: Path | None, out: Path) -> None:
    """What there is now, and what to do with it."""
    if left_out := len(found.files) - len(tasks):
        print(f"{left_out} of {len(found.files)} images are not in {prompts} and were left out")
    if chosen is None:
        return
    print(f"{len(chosen.order)} masks: {out / 'labels.json'} (file names from {found.root}) and {out / 'masks'}")
    print(f"{chosen.words()}\nlook at {out / 'review.html'}")
