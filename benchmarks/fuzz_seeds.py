"""Small valid files of every kind that the project reads, for benchmarks/fuzz.py to make wrong ones of."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ruac.data.labels import encode
from ruac.exchange import coco, cvat, label_studio
from ruac.exchange.labelset import LabelledObject, LabelSet, Picture

HEIGHT, WIDTH = 20, 30
SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]
ORIENTATION = 0x0112


def saved(image: Image.Image | NDArray[Any], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def colours(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pictures() -> list[bytes]:
    """One of every kind of picture that is read."""
    rgb = colours()
    image = Image.fromarray(rgb)
    grey, deep = rgb[..., 0], rgb[..., 0].astype(np.uint16) * 257
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    palette = image.quantize(16)
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90), palette.convert("RGB")]}
    return [
        saved(image, "PNG"),
        saved(image.convert("RGBA"), "PNG"),
        saved(palette, "PNG", transparency=1),
        saved(grey, "PNG", transparency=7),
        saved(grey > 127, "PNG"),
        saved(deep, "PNG"),
        saved(image, "PNG", exif=exif),
        saved(image, "PNG", **frames),
        saved(image, "JPEG"),
        saved(image, "JPEG", progressive=True, exif=exif),
        saved(image.convert("CMYK"), "JPEG"),
        saved(grey, "JPEG", quality=5),
        saved(image, "TIFF"),
        saved(image, "TIFF", compression="tiff_lzw"),
        saved(image, "TIFF", compression="tiff_deflate", **frames),
        saved(image, "TIFF", compression="jpeg"),
        saved(image.convert("CMYK"), "TIFF"),
        saved(deep, "TIFF"),
        saved(grey.astype(np.float32), "TIFF"),
        saved(grey.astype(np.int32), "TIFF"),
        saved(image, "BMP"),
        saved(palette, "BMP"),
        saved(image, "WEBP"),
        saved(image, "WEBP", lossless=True, exif=exif),
        saved(image, "WEBP", **frames),
        saved(image, "GIF", **frames),
        saved(image, "PPM"),
        saved(grey, "PPM"),
    ]


def ids() -> NDArray[np.uint8]:
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[3:9, 2:12], values[10:15, 14:28], values[18:] = 1, 2, 255
    return values


def masks() -> list[bytes]:
    """Maps of ids, grey, indexed, coloured and of 16 bits."""
    grey = Image.fromarray(ids())
    indexed = grey.copy()
    indexed.putpalette(list(range(256)) * 3)
    return [saved(grey, "PNG"), saved(indexed, "PNG"), saved(ids().astype(np.uint16), "PNG"), saved(grey.convert("RGB"), "PNG")]


ZONE, EAST, NORTH = "EPSG:32632", 500_000, 5_500_000  # metres


def tiff_on_earth(folder: Path) -> bytes:
    """A georeferenced picture."""
    import rasterio

    path = folder / "earth.tif"
    transform = rasterio.Affine(0.5, 0, EAST, 0, -0.5, NORTH)
    profile = {"driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=ZONE, transform=transform, **profile) as file:
        file.write(colours().transpose(2, 0, 1))
    content = path.read_bytes()
    path.unlink()
    return content


def film(folder: Path) -> bytes:
    """Six frames of 64 x 48 pixels."""
    import av

    path = folder / "film.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shift in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(colours(48, 64), shift, 1), format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    path.unlink()
    return content


def label_set() -> LabelSet:
    """Two pictures; a mask in several pieces, one with a hole, one with facts."""
    pieces = ids() == 1
    pieces[15:18, 20:24] = True
    ring = np.zeros((HEIGHT, WIDTH), np.bool_)
    ring[4:16, 5:20], ring[8:12, 9:14] = True, False
    facts = {"score": 0.9, "expected_iou": 0.75, "mean_uncertainty": 0.125, "object_score": 0.5}
    first = Picture("a.png", (HEIGHT, WIDTH), (LabelledObject.of_mask("cat", encode(pieces), facts),))
    second = Picture("sub/b.png", (HEIGHT, WIDTH), (LabelledObject.of_mask("dog", encode(ring), facts),))
    return LabelSet((first, second), ("cat", "dog"), {"description": "fuzz", "model": "nano"})


def label_files() -> dict[str, list[bytes]]:
    """The same labels in the formats of other tools."""
    labels, tags = label_set(), label_studio.Tags()
    return {
        "coco": [coco.write(labels, "mask", 0.0), coco.write(labels, "polygon", 0.0)],
        "label-studio": [label_studio.write(labels, tags, "nano", shape) for shape in ("mask", "polygon")],
        "cvat": [cvat.write(labels, "mask", 0.0), cvat.write(labels, "polygon", 0.5)],
    }


def geojson() -> bytes:
    """A square on the picture of `tiff_on_earth`."""
    from rasterio.warp import transform

    east, north = [EAST + 2, EAST + 8, EAST + 8, EAST + 2, EAST + 2], [NORTH - 2, NORTH - 2, NORTH - 7, NORTH - 7, NORTH - 2]
    ring = [list(place) for place in zip(*transform(ZONE, "EPSG:4326", east, north), strict=True)]
    feature = {
        "type": "Feature",
        "properties": {"image": "earth.tif", "label": "cat", "score": 0.5},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    return json.dumps({"type": "FeatureCollection", "features": [feature]}).encode()


def published() -> dict[str, bytes]:
    """What published data sets say of one picture a.jpg, by the kind of their files."""
    compressed = encode(ids() == 1)["counts"].decode()
    objects = [
        {"id": 1, "image_id": 5, "category_id": 1, "segmentation": [SQUARE], "bbox": [2, 3, 10, 6], "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 1, "bbox": [2, 3, 10, 6], "iscrowd": 1}
        | {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [50, 20, HEIGHT * WIDTH - 70]}},
        {
            "id": 3,
            "image_id": 5,
            "category_id": 1,
            "bbox": [2, 3, 10, 6],
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": compressed},
        },
    ]
    picture = {"id": 5, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}
    categories = [{"id": 1, "name": "cat", "supercategory": ""}]
    video = {"id": 5, "file_names": ["a.jpg", "b.jpg"], "height": HEIGHT, "width": WIDTH}
    track = {"id": 1, "video_id": 5, "segmentations": [[SQUARE], None]}
    points = {"all_points_x": SQUARE[::2], "all_points_y": SQUARE[1::2]}
    pairs = [SQUARE[n : n + 2] for n in range(0, 8, 2)]
    labelme = {"shapes": [{"label": "cat", "points": pairs}], "imageHeight": HEIGHT, "imageWidth": WIDTH}
    woodscape = {"annotation": [{"segmentation": pairs, "tags": ["cat"]}], "image_height": HEIGHT, "image_width": WIDTH}
    visor = {"image": {"name": "a.jpg", "subsequence": "s"}, "annotations": [{"segments": [pairs]}]}
    documents = {
        "coco": {"images": [picture], "annotations": objects, "categories": categories},
        "video": {"videos": [video], "annotations": [track]},
        "via": {"a": {"filename": "a.jpg", "regions": [{"shape_attributes": points}]}},
        "labelme": labelme,
        "woodscape": {"a": woodscape},
        "visor": {"video_annotations": [visor]},
    }
    return {kind: json.dumps(document).encode() for kind, document in documents.items()}


BOXES = json.dumps(
    {"a.jpg": [{"box": [2, 3, 12, 9], "points": [[5, 5, 1], [20, 15, 0]], "label": "cat"}], "b.jpg": [{"points": [[4, 4]]}]}
).encode()
POINTS = b"image,x,y,label,object,category\na.jpg,5,5,1,1,cat\na.jpg,20,15,0,1,cat\nb.jpg,3.5,4,1,2,dog\n"
CLICKS = (
    b'{"format": "ruac-prompts-1", "prompt": "point", "clicks": 5}\n'
    b'{"set": "squares", "image": "0", "objects": {"1": {"points": [[10.0, 6.0, 1], [13.0, 8.0, 0]]}}}\n'
)
RUN_LENGTHS = b"ImageId,EncodedPixels\na,1 5 30 10\na,100 20\nb,\n"
RECIPE = b"""data: [data]
out: run
start: model
image_size: 64
hedge: {deviations: 0.5}
stages:
  - {steps: 2, image_size: 64, images: 4, objects: 2, warmup: 1, attack: {kind: cooperative}}
  - {steps: 3, image_size: 64, images: 2, objects: 1, train: head, pictures: photographs}
"""
