"""What benchmarks/fuzz.py reads its broken files with: every reader of the project, as the commands call it."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_mutations as mutate
import fuzz_seeds as seeds
from fuzz_seeds import HEIGHT, WIDTH

from ruac.data.readers import CocoJson, CocoVideoJson, Reader
from ruac.data.readers_maps import ColourMaps, IdMaps, MaskFiles, RunLengthCsv
from ruac.data.readers_polygons import LABELME, VIA, VISOR, WOODSCAPE, PolygonJson, Words

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """One kind of file. name: of the target; file: that is made wrong, in the folder that `read` gets; valid: of such files, the
    first of them one that is accepted; mutations: one is drawn for each input; share: of the inputs, beside those of the other
    targets; others: files beside it, which stay; culprit: whether a refusal must name the file."""

    name: str
    file: str
    valid: Sequence[bytes]
    read: Read
    mutations: Sequence[mutate.Mutation]
    share: float = 2.0
    others: dict[str, bytes] = field(default_factory=dict)
    culprit: bool = True


def targets(folder: Path) -> list[Target]:
    """All of them. folder: an empty one, for what has to be made on the way."""
    with warnings.catch_warnings(action="ignore"):
        from fuzz_models import model_targets
        from fuzz_results import result_targets

        return [
            *_pictures(folder),
            *_annotations(),
            *_prompts(),
            *_exchange(folder),
            *model_targets(folder),
            *result_targets(folder),
        ]


def json_files(name: str, valid: Sequence[bytes], read: Read, share: float = 2.0, **more: Any) -> Target:
    """A file of JSON that is called after the target."""
    return Target(name, more.pop("file", f"{name}.json"), valid, read, [mutate.json_changed], share, **more)


def _pictures(folder: Path) -> list[Target]:
    from ruac.data.folder import read_mask
    from ruac.data.image import read_image
    from ruac.exchange.pictures import size_of_picture
    from ruac.training.sources import read_ids
    from ruac.video.frames import open_frames

    found, maps = seeds.pictures(), seeds.masks()
    change: list[mutate.Mutation] = [partial(mutate.bytes_changed, others=found), mutate.png_changed]
    picture = {"images/a.png": found[0]}

    def film(path: Path) -> None:
        frames = open_frames(path / "film.mp4")
        for number in range(len(frames)):
            frames[number]

    def of_maps(reader: Reader) -> Read:
        return lambda path: _convert(reader, path)

    return [
        Target("picture", "picture.bin", found, lambda path: read_image(path / "picture.bin"), change, 20),
        Target("size of a picture", "picture.bin", found, lambda path: size_of_picture(path / "picture.bin"), change, 4),
        Target("mask", "mask.png", [*maps[:1] * 14, *maps, *found], lambda path: read_mask(path / "mask.png"), change, 6),
        Target(
            "mask of a video", "mask.png", [*maps[:2] * 7, *maps, *found], lambda path: read_ids(path / "mask.png"), change, 4
        ),
        Target("map of ids", "masks/a.png", maps, of_maps(IdMaps((("masks/*.png", "images/{0}.png"),))), change, 3, picture),
        Target(
            "map of colours", "masks/a.png", maps, of_maps(ColourMaps((("masks/*.png", "images/{0}.png"),))), change, 2, picture
        ),
        Target("file a mask", "masks/a.png", maps, of_maps(MaskFiles((("masks/*.png", "images/{0}.png"),))), change, 2, picture),
        Target("film", "film.mp4", [seeds.film(folder)], film, [mutate.bytes_changed], 2),
    ]


def _annotations() -> list[Target]:
    """Published data sets: a.jpg and b.jpg are there, the link `link` leads out of the folder."""
    picture = seeds.saved(seeds.colours(), "JPEG")
    images = {f"images/{name}.jpg": picture for name in "ab"}
    valid = seeds.published()

    def polygons(words: Words) -> Reader:
        return PolygonJson((("labels/*.json", "images"),), words)

    readers: dict[str, Reader] = {
        "coco": CocoJson((("labels/a.json", "images"),)),
        "video": CocoVideoJson((("labels/a.json", "images"),)),
        "via": polygons(VIA),
        "labelme": polygons(LABELME),
        "woodscape": polygons(WOODSCAPE),
        "visor": polygons(VISOR),
    }
    found = [
        json_files(
            f"data set of {kind}",
            [valid[kind]],
            partial(_convert, reader),
            2.5,
            file="labels/a.json",
            others=images,
            culprit=False,
        )
        for kind, reader in readers.items()
    ]
    table = RunLengthCsv((("table.csv", "images/{0}.jpg"),))
    runs = Target(
        "run lengths", "table.csv", [seeds.RUN_LENGTHS], partial(_convert, table), [mutate.text_changed], 3, images, False
    )
    return [*found, runs]


def _convert(reader: Reader, root: Path) -> None:
    """As `ruac data convert` reads, without writing. A picture that is outside the folder is told by who watches what is opened."""
    from ruac.data.image import read_image
    from ruac.data.labels import to_folder_mask

    for item in reader.items(root):
        pixels = read_image(item.image)
        size = pixels.shape[0], pixels.shape[1]
        to_folder_mask(item.labels(size), size)


def _prompts() -> list[Target]:
    from ruac.data.folder import FolderSet, find_sets
    from ruac.evaluate.clickfile import ClickFile
    from ruac.label.images import ImageFile, find_images
    from ruac.label.prompts import match, read_prompts

    files = [ImageFile(Path("photos", name), name) for name in ("a.jpg", "b.jpg")]

    def prompts(name: str) -> Read:
        def read(path: Path) -> None:
            for task in match(read_prompts(path / name), files):
                for wanted in task.wanted:
                    # what does not fit a picture is told when it is its turn
                    with contextlib.suppress(ValueError):
                        wanted.fit(task.size or (HEIGHT, WIDTH))

        return read

    def list_of_images(path: Path) -> None:
        lines = (path / "list.txt").read_text(encoding="utf-8-sig", errors="replace").splitlines()
        # "/" means every image of this machine, which is right, and takes long
        if not any(_is_there(line.strip()) and not Path(line.strip()).is_relative_to(path) for line in lines if "\0" not in line):
            find_images([str(path / "list.txt")], path / "out")

    def folder_set(path: Path) -> FolderSet:
        (found,) = find_sets([path])
        return found

    picture = {"images/0.png": seeds.saved(seeds.colours(), "PNG"), "masks/0.png": seeds.masks()[0]}
    return [
        json_files("boxes", [seeds.BOXES], prompts("boxes.json"), 5),
        json_files("boxes of coco", [seeds.published()["coco"]], prompts("boxes of coco.json"), 4),
        Target("points", "points.csv", [seeds.POINTS], prompts("points.csv"), [mutate.text_changed], 4),
        Target(
            "clicks",
            "clicks.jsonl",
            [seeds.CLICKS],
            lambda path: ClickFile.read(path / "clicks.jsonl"),
            [mutate.lines_of_json_changed],
            3,
        ),
        Target(
            "list of images",
            "list.txt",
            [b"images/0.png\n/nowhere/b.jpg\nphotos/c.png\n"],
            list_of_images,
            [mutate.text_changed],
            2,
            picture,
            culprit=False,
        ),
        json_files(
            "meta", [b'{"name": "squares", "domain": "made up", "licence": "CC0"}'], folder_set, others=picture, culprit=False
        ),
    ]


def _is_there(pattern: str) -> bool:
    return bool(glob.glob(pattern))  # noqa: PTH207  takes absolute patterns, too


def _exchange(folder: Path) -> list[Target]:
    """Read and written in another format, as `ruac convert-labels` does; the link `link` leads out of the folder of pictures."""
    picture = seeds.saved(seeds.colours(), "PNG")
    images = {"images/a.png": picture, "images/sub/b.png": picture}
    earth = {"images/earth.tif": seeds.tiff_on_earth(folder)}
    valid = seeds.label_files()
    line = b"0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.5 0.5 0.2 0.2\n"
    names = b"train: images\nval: images\nnames: {0: cat, 1: dog}\n"

    def converted(labels: str, *formats: str) -> Read:
        return lambda path: _convert_labels(path / labels, path, formats)

    others = ("label-studio", "cvat", "yolo", "coco")
    return [
        json_files("labels of coco", valid["coco"], converted("labels of coco.json", *others), 5, others=images, culprit=False),
        json_files(
            "labels of label studio",
            valid["label-studio"],
            converted("labels of label studio.json", "coco"),
            5,
            others=images,
            culprit=False,
        ),
        Target(
            "labels of cvat",
            "cvat.xml",
            valid["cvat"],
            converted("cvat.xml", "coco", "yolo"),
            [mutate.xml_changed],
            5,
            images,
            False,
        ),
        json_files("geojson", [seeds.geojson()], converted("geojson.json", "coco", "geojson"), 3, others=earth, culprit=False),
        Target(
            "labels of yolo",
            "labels/a.txt",
            [line],
            converted("", "coco"),
            [mutate.text_changed],
            3,
            {**images, "data.yaml": names},
            False,
        ),
        Target(
            "classes of yolo",
            "data.yaml",
            [names],
            converted("", "coco"),
            [mutate.text_changed],
            2,
            {**images, "labels/a.txt": line},
            False,
        ),
    ]


def _convert_labels(labels: Path, folder: Path, formats: Sequence[str]) -> None:
    from ruac.exchange.command import convert_labels

    content = labels.read_bytes() if labels.is_file() else (folder / "labels" / "a.txt").read_bytes()
    # which of them, and whether the pictures are looked at, depends on the file alone
    choice = sum(content)
    kind: Any = formats[choice % len(formats)]
    images = folder / "images" if choice // 7 % 2 or labels.name == "geojson.json" else None
    (folder / "out").mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        convert_labels(labels, kind, folder / "out" / ("set" if kind == "yolo" else "labels"), images)


def described(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()
