"""`ruac convert-labels`: labels from one tool's format to another's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ruac.errors import WorkError, one_line

if TYPE_CHECKING:
    from ruac.exchange.labelset import LabelSet, Reading

Format = Literal["coco", "yolo", "label-studio", "cvat", "geojson"]
Shape = Literal["mask", "polygon"]
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MOST_SHOWN = 20  # problems


def convert_labels(
    labels: Path,
    to: Format,
    out: Path,
    images: Path | None = None,
    shape: Shape | None = None,
    tolerance: float = 0.0,
    from_name: str = "label",
    to_name: str = "image",
    address: str = "/data/local-files/?d=",
    model_version: str | None = None,
) -> None:
    """Convert labels, such as the labels.json of `ruac label`, for another tool, or back from it.

    What LABELS is, is seen from its content: COCO JSON, a YOLO folder (data.yaml, labels/), a JSON export of Label Studio, CVAT's XML
    for images, or GeoJSON. Masks are exact in every format: run lengths in COCO, Label Studio and CVAT, in YOLO and GeoJSON
    polygons along the edges of pixels. Where a format has one polygon an object and no holes, the polygon goes to each hole and piece
    and back on the same way. Expected IoU and scores go along wherever the format has a place for them (not in YOLO). To go on with
    corrected labels as prompts or as masks, convert them to coco.

    Example: ruac convert-labels out/labels.json --to yolo --out my_set --images photos

    Args:
        labels: A file, or the folder of a YOLO set.
        to: coco, yolo, label-studio, cvat or geojson.
        out: The file to write; for yolo the folder.
        images: Folder of the pictures: copied into a YOLO set, read for their place on Earth by GeoJSON. If given, the size of every
            picture is checked against the labels.
        shape: mask or polygon, for coco, label-studio and cvat; by default mask.
        tolerance: Pixels that polygons may be off, to have fewer points; 0 keeps the masks as they are.
        from_name: For label-studio: name of the labelling configuration's BrushLabels or PolygonLabels.
        to_name: For label-studio: name of its Image.
        address: For label-studio: what comes before a picture's name to make its address; by default that of local storage.
        model_version: For label-studio: by default the model that the labels name.

    Raises:
        ValueError: For labels in none of the formats, and options that do not fit.
        FileNotFoundError: When there is no such file or folder.
        WorkError: At the end, when some of the labels could not be converted; all others are.
    """
    _check_options(to, out, images, shape, tolerance)
    reading = read_labels(labels, images)
    kept, problems = _with_pictures(reading.labels, images) if images is not None else (reading.labels, ())
    options = Options(shape or "mask", tolerance, from_name, to_name, address, model_version or _model_of(kept))
    written, left_out, more = write_labels(kept, to, out, images, options)
    problems = [*reading.problems, *problems, *more]
    pictures = len(written.pictures)
    print(f"{out}: {written.count} objects in {pictures} picture{'s' * (pictures != 1)}{_remarks(reading.skipped, left_out)}")
    if problems:
        shown = problems[:MOST_SHOWN] + ([f"... and {len(problems) - MOST_SHOWN} more"] if len(problems) > MOST_SHOWN else [])
        raise WorkError("\n".join([f"{len(problems)} could not be converted:", *shown]))


@dataclass(frozen=True)
class Options:
    """Of the formats that have them, see `convert_labels`."""

    shape: Shape
    tolerance: float
    from_name: str
    to_name: str
    address: str
    model_version: str


def read_labels(path: Path, images: Path | None = None) -> Reading:
    """Labels of any of the formats. images: folder of the pictures, where the format needs it.

    Raises ValueError for what is none of them, FileNotFoundError when it is not there.
    """
    from ruac.exchange import coco, cvat, geojson, label_studio, yolo
    from ruac.exchange.parsing import parse_json, parse_xml

    if path.is_dir():
        return yolo.read(path, images)
    content = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    try:
        if content.lstrip().startswith(b"<"):
            return cvat.read(parse_xml(content))
        data = parse_json(content)
        if isinstance(data, list):
            return label_studio.read(data, images)
        if isinstance(data, dict) and data.get("type") == "FeatureCollection":
            if images is None:
                raise ValueError("GeoJSON says where on Earth things are; say with --images where the pictures are")
            return geojson.read(data, images)
        if isinstance(data, dict) and "images" in data:
            return coco.read(data)
    except ValueError as error:
        raise ValueError(one_line(error, str(path))) from None
    raise ValueError(f"{path}: neither COCO nor Label Studio's export nor GeoJSON")


def write_labels(
    labels: LabelSet, to: Format, out: Path, images: Path | None, options: Options
) -> tuple[LabelSet, int, tuple[str, ...]]:
    """What was written, how many objects have no area and no place in the format, and what went wrong, in lines."""
    from ruac.exchange import coco, cvat, geojson, label_studio, yolo
    from ruac.exchange.labelset import with_area
    from ruac.writing import write_whole

    if to == "coco":
        write_whole(out, coco.write(labels, options.shape, options.tolerance))
        return labels, 0, ()
    labels, left_out = with_area(labels)
    if to == "yolo":
        return labels, left_out, yolo.write(labels, out, images, options.tolerance)
    problems: tuple[str, ...] = ()
    if to == "label-studio":
        tags = label_studio.Tags(options.from_name, options.to_name)
        content = label_studio.write(labels, tags, options.model_version, options.shape, options.tolerance, options.address)
    elif to == "cvat":
        content = cvat.write(labels, options.shape, options.tolerance)
    else:
        assert images is not None
        content, labels, problems = geojson.write(labels, images, options.tolerance)
    write_whole(out, content)
    return labels, left_out, problems


def _check_options(to: Format, out: Path, images: Path | None, shape: Shape | None, tolerance: float) -> None:
    from ruac.writing import require_folder

    if to == "yolo":
        require_folder(out)
    elif out.is_dir():
        raise ValueError(f"--out {out}: a folder; name the file to write")
    elif not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}")
    if shape is not None and to in ("yolo", "geojson"):
        raise ValueError(f"--shape {shape}: {to} has polygons only; leave it out")
    if to == "geojson" and images is None:
        raise ValueError("--to geojson needs --images, the folder of the georeferenced pictures")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"--tolerance {tolerance:g}: pixels, 0 or more")


def _with_pictures(labels: LabelSet, images: Path) -> tuple[LabelSet, list[str]]:
    """Without the pictures that are not there or of another size, and a line each of these."""
    from dataclasses import replace

    from ruac.exchange.pictures import check_picture, pictures_in

    pictures_in(images)
    kept, problems = [], []
    for picture in labels.pictures:
        try:
            check_picture(images, picture)
            kept.append(picture)
        except ValueError as error:
            problems.append(str(error))
    return replace(labels, pictures=tuple(kept)), problems


def _model_of(labels: LabelSet) -> str:
    model = labels.info.get("model")
    return model if isinstance(model, str) else "ruac"


def _remarks(skipped: int, left_out: int) -> str:
    said = [(skipped, "shapes that are no areas"), (left_out, "objects without an area (boxes alone, empty masks)")]
    return "".join(f"; {count} {what} left out" for count, what in said if count)
