"""Every data set of the registry in small: its folders, names and encodings as published, with their quirks. No tests here."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 24, 32
Ids = NDArray[np.uint8]
Expected = dict[str, Ids]  # masks by name
LARGE, SMALL = (3, 2, 15, 12), (18, 14, 30, 20)  # boxes x0, y0, x1, y1, the ends excluded
VOC_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[0] * 756, 224, 224, 192]


def boxes(*places: tuple[tuple[int, int, int, int], int]) -> Ids:
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    for (x0, y0, x1, y1), number in places:
        ids[y0:y1, x0:x1] = number
    return ids


TWO = boxes((LARGE, 1), (SMALL, 2))


def polygon(box: tuple[int, int, int, int]) -> list[int]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def points(box: tuple[int, int, int, int]) -> list[list[int]]:
    return np.reshape(polygon(box), (-1, 2)).tolist()


def counts(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, background first."""
    flat = mask.ravel(order="F").astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return np.diff(np.concatenate([[0], changes])).tolist()


def compressed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def image(path: Path, mode: str = "RGB") -> bytes:
    """Random, so that every file differs; returns its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(path.as_posix().encode())).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path.read_bytes()


def picture(path: Path, pixels: NDArray[Any], palette: list[int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = Image.fromarray(pixels)
    if palette:
        labels.putpalette(palette)
    labels.save(path)


def text(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def coco(names: list[str], **more: Any) -> dict[str, Any]:
    """Every image with both boxes, and a polygon of two points that is to be skipped."""
    objects = [(i, [polygon(box)]) for i in range(len(names)) for box in (SMALL, LARGE)] + [(0, [[1, 1, 5, 5]])]
    return {
        "info": {},
        "images": [{"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH, **more} for i, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": i, "segmentation": s, "iscrowd": 0} for n, (i, s) in enumerate(objects)],
        "categories": [{"id": 1, "name": "thing"}],
    }


def trashcan(root: Path) -> Expected:
    folder = root / "instance_version"
    text(folder / "instances_val_trashcan.json", coco(["vid_000002_frame0000013.jpg"]))
    image(folder / "val" / "vid_000002_frame0000013.jpg")
    return {"vid_000002_frame0000013": TWO}


def ishape(root: Path) -> Expected:
    for part, suffix in (("antenna", "jpg"), ("wire", "png")):
        image(root / part / "val" / "image" / f"4096.{suffix}")
        picture(root / part / "val" / "instance_map" / "4096.png", np.array([0, 1001, 255], np.uint16)[TWO])
        image(root / part / "train" / "image" / "1.jpg")
        picture(root / part / "train" / "instance_map" / "1.png", TWO.astype(np.uint16))
    return {"antenna_4096": TWO, "wire_4096": TWO}


def zerowaste(root: Path) -> Expected:
    folder = root / "splits_final_deblurred" / "train"
    text(folder / "labels.json", coco(["01_frame_000000.PNG"]))
    image(folder / "data" / "01_frame_000000.PNG")
    picture(folder / "sem_seg" / "01_frame_000000.PNG", TWO)
    return {"01_frame_000000": TWO}


def lvis(root: Path) -> Expected:
    document = coco(["COCO_val2014_000000000139.jpg", "COCO_val2014_000000000285.jpg"], not_exhaustive_category_ids=[7])
    document["images"][0]["coco_url"] = "http://images.cocodataset.org/val2017/000000000139.jpg"
    for entry in document["annotations"]:
        del entry["iscrowd"]
    text(root / "annotations" / "lvis_v0.5_val.json", document)
    for name in ("000000000139", "000000000285"):
        image(root / "val2017" / f"{name}.jpg")
    return {"000000000139": TWO, "000000000285": TWO}


def doors(root: Path) -> Expected:
    folder = root / "Segmentation" / "DS1" / "DS"
    for name in ("00001", "00002", "00003"):
        image(folder / "img" / f"{name}.png")
        picture(folder / "mask" / f"{name}.png", np.repeat((TWO == 1)[..., None] * np.uint8(255), 3, 2))
    text(folder / "Te1.txt", "00001.png\n")
    text(folder / "Te2.txt", "00003.png\n")
    return dict.fromkeys(("00001", "00003"), boxes((LARGE, 1)))


def pidray(root: Path) -> Expected:
    text(root / "annotations" / "xray_test_hard.json", coco(["xray_hard00000.png"]))
    image(root / "hard" / "xray_hard00000.png")
    return {"xray_hard00000": TWO}


def plittersdorf(root: Path) -> Expected:
    text(root / "test.json", coco(["video_0001.jpg"]))
    image(root / "images" / "video_0001.jpg")
    text(root / "images" / "video_0001.exr", "disparity")
    return {"video_0001": TWO}


def ovis(root: Path) -> Expected:
    """Nothing is seen in the first frame; afterwards one object has run lengths of each kind."""
    names = [f"fb4a7958/img_000000{i}.jpg" for i in (1, 2, 3)]
    parts = [None, {"size": [HEIGHT, WIDTH], "counts": counts(TWO == 1)}, compressed(TWO == 1)]
    late = [None, None, compressed(TWO == 2)]
    tracks = [{"id": n, "video_id": 1, "iscrowd": 0, "segmentations": track} for n, track in enumerate((parts, late))]
    video = {"id": 1, "file_names": names, "height": HEIGHT, "width": WIDTH, "length": 3}
    text(root / "annotations_train.json", {"videos": [video], "annotations": tracks, "categories": []})
    for name in names:
        image(root / "train" / name)
    return {"fb4a7958_img_0000002": boxes((LARGE, 1))}


def timberseg(root: Path) -> Expected:
    text(root / "prescaled" / "coco_annotation.json", coco(["images/IMG_0001.png"]))
    image(root / "prescaled" / "images" / "IMG_0001.png")
    return {"images_IMG_0001": TWO}


def via(name: str, kind: str, first_version: bool = False) -> dict[str, Any]:
    regions = [
        {"shape_attributes": {"name": kind, "all_points_x": polygon(b)[::2], "all_points_y": polygon(b)[1::2]}}
        for b in (LARGE, SMALL)
    ]
    regions.append({"shape_attributes": {"name": kind, "all_points_x": [1, 2], "all_points_y": [1, 2]}})
    shaped = {str(n): region for n, region in enumerate(regions)} if first_version else regions
    return {f"{name}123": {"filename": name, "size": 123, "regions": shaped, "file_attributes": {}}}


def ndd20(root: Path) -> Expected:
    """Both halves count their images from one."""
    for part in ("ABOVE", "BELOW"):
        text(root / f"{part}_LABELS.json", via("1.jpg", "polyline"))
        image(root / part / "1.jpg")
    return {"ABOVE_1": TWO, "BELOW_1": TWO}


def cityscapes(root: Path) -> Expected:
    """A road (7), two cars (26000, 26001), a group of cars (26), and what is out of the region (3), in 16 bits."""
    city, name = "frankfurt", "frankfurt_000000_000294"
    ids = np.full((HEIGHT, WIDTH), 7, np.uint16)
    ids[TWO == 1], ids[TWO == 2], ids[:, 31], ids[22:, :5] = 26000, 26001, 3, 26
    picture(root / "gtFine" / "val" / city / f"{name}_gtFine_instanceIds.png", ids)
    picture(root / "gtFine" / "val" / city / f"{name}_gtFine_labelIds.png", TWO)
    image(root / "leftImg8bit" / "val" / city / f"{name}_leftImg8bit.png")
    return {f"frankfurt_{name}": np.where((ids == 3) | (ids == 26), 255, TWO).astype(np.uint8)}


def ade20k(root: Path) -> Expected:
    """Red and green name the class, blue the instance; what is black is unlabelled."""
    folder, name = root / "images" / "ADE" / "validation" / "urban" / "street", "ADE_val_00000001"
    wall = boxes((LARGE, 2), (SMALL, 3)) + (boxes((LARGE, 2), (SMALL, 3)) == 0)
    wall[:, 0] = 0
    picture(folder / f"{name}_seg.png", np.array([[0, 0, 0], [120, 60, 10], [10, 145, 25], [10, 145, 40]], np.uint8)[wall])
    picture(folder / f"{name}_parts_1.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    image(folder / f"{name}.jpg")
    return {"ADE_validation_urban_street_00000001": np.where(wall == 0, 255, wall).astype(np.uint8)}


def hypersim(root: Path) -> Expected:
    import h5py

    folder = root / "ai_001_001" / "images"
    for frame in ("0000", "0002"):
        (folder / "scene_cam_00_geometry_hdf5").mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / "scene_cam_00_geometry_hdf5" / f"frame.{frame}.semantic_instance.hdf5", "w") as file:
            file["dataset"] = np.array([-1, 7, 312], np.int32)[TWO]
        image(folder / "scene_cam_00_final_preview" / f"frame.{frame}.tonemap.jpg")
    return {f"ai_001_001_scene_cam_00_{frame}": TWO for frame in ("0000", "0002")}


def streets(root: Path) -> Expected:
    name = "Arlington Heights at Checker (Wireless) West-4.jpg"
    folder = root / "vehicleannotations"
    text(folder / "annotations" / "vehicle-annotations.json", via(name, "polygon", first_version=True))
    image(folder / "images" / name)
    return {"Arlington Heights at Checker _Wireless_ West-4": TWO}


def ndispark(root: Path) -> Expected:
    text(root / "validation" / "val_coco_annotations.json", coco(["69_1531569735.jpg"]))
    image(root / "validation" / "imgs" / "69_1531569735.jpg")
    return {"69_1531569735": TWO}


def woodscape(root: Path) -> Expected:
    """Points as pairs; a stripe of void over everything is not to be judged where nothing else is."""
    shapes = [("car", LARGE), ("person", SMALL), ("void", (30, 0, 32, 24)), ("curb", (0, 0, 0, 0))]
    annotation = [{"tags": [tag], "segmentation": points(box)[: 2 if tag == "curb" else 4], "states": {}} for tag, box in shapes]
    record = {"image_height": HEIGHT, "image_width": WIDTH, "annotation": annotation}
    text(root / "instance_annotations" / "00001_FV.json", {"00001_FV.json": record})
    image(root / "rgb_images" / "00001_FV.png")
    return {"00001_FV": boxes(((30, 0, 32, 24), 255), (LARGE, 1), (SMALL, 2))}


def ibd(root: Path) -> Expected:
    image(root / "val" / "DJI_0001.jpg")
    picture(root / "val_labels" / "DJI_0001.png", np.array([[0, 0, 0], [200, 10, 0], [0, 0, 90]], np.uint8)[TWO])
    return {"DJI_0001": TWO}


def dram(root: Path) -> Expected:
    """Numbers of VOC's classes; the seam is void."""
    ids = np.array([0, 15, 3], np.uint8)[TWO]
    ids[:, 2] = 255
    for place in ("realism/ilya-repin", "unseen/rococo/george-morland"):
        image(root / "test" / place / "47588.jpg")
        picture(root / "labels" / place / "47588.png", ids, VOC_PALETTE)
    return {"realism_ilya-repin_47588": ids, "unseen_rococo_george-morland_47588": ids}


def bbbc(root: Path) -> Expected:
    """RGBA images, one file a nucleus."""
    folder = root / "stage1_train" / ("00ae65" + "0" * 58)
    image(folder / "images" / f"{folder.name}.png", "RGBA")
    for number in (1, 2):
        picture(folder / "masks" / f"{number:064x}.png", (number == TWO) * np.uint8(255))
    return {folder.name: TWO}


def ppdls(root: Path) -> Expected:
    for folder, name in (("Ara2012", "ara2012_plant001"), ("Tobacco", "tobacco_plant001"), ("Ara2013-Canon", "ara2013_plant001")):
        image(root / "Plant" / folder / f"{name}_rgb.png")
        picture(root / "Plant" / folder / f"{name}_label.png", np.array([0, 12, 5], np.uint8)[TWO], VOC_PALETTE)
    ids = np.array([0, 12, 5], np.uint8)[TWO]
    return {"ara2012_plant001": ids, "tobacco_plant001": ids}


def gtea(root: Path) -> Expected:
    """Whatever colours the hands have, here those of a palette."""
    image(root / "GTEA" / "Images" / "s2_coffee_0001.jpg")
    picture(root / "GTEA" / "Masks" / "s2_coffee_0001.png", TWO, VOC_PALETTE)
    return {"s2_coffee_0001": TWO}


def egohos(root: Path) -> Expected:
    ids = np.array([0, 2, 8], np.uint8)[TWO]
    image(root / "train" / "image" / "ego4d_0001.jpg")
    picture(root / "train" / "label" / "ego4d_0001.png", ids)
    picture(root / "train" / "contact" / "ego4d_0001.png", ids)
    return {"ego4d_0001": ids}


def visor(root: Path) -> Expected:
    """Two videos in folders of their own; a pan with a hole; of a subsequence only the first frame."""
    base, hole = root / "GroundTruth-SparseAnnotations", (6, 4, 10, 8)
    for video in ("P01_107", "P02_07"):
        records = []
        for frame in (200, 140, 300):
            name = f"{video}_frame_{frame:010d}.jpg"
            image(base / "rgb_frames" / "val" / video[:3] / video / name)
            about = {"name": name, "video": video, "subsequence": f"{video}_seq_{frame // 300:05d}", "image_path": f"x/{name}"}
            objects = [
                {"id": "a", "name": "pan", "class_id": 5, "segments": [points(LARGE), points(hole)]},
                {"id": "b", "name": "hand", "class_id": 300, "segments": [points(SMALL), []]},
            ]
            records.append({"image": about, "annotations": objects})
        text(base / "annotations" / "val" / f"{video}.json", {"info": {}, "video_annotations": records})
    ids = boxes((LARGE, 1), (hole, 0), (SMALL, 2))
    return {f"{video}_frame_{frame:010d}": ids for video in ("P01_107", "P02_07") for frame in (140, 300)}


def indexed_video(root: Path, images: str, labels: str, ids: Ids, videos: tuple[str, ...]) -> None:
    for video in videos:
        for frame in ("00000", "00005"):
            image(root / images / video / f"{frame}.jpg")
            picture(root / labels / video / f"{frame}.png", ids if frame == "00000" else np.zeros_like(ids), VOC_PALETTE)


def mose(root: Path) -> Expected:
    indexed_video(root, "train/JPEGImages", "train/Annotations", TWO, ("002b4dce", "00ad5eba"))
    return {"002b4dce_00000": TWO, "00ad5eba_00000": TWO}


def coco2017(root: Path) -> Expected:
    """A crowd in run lengths, which is not to be judged where it is alone."""
    document, crowd = coco(["000000000009.jpg"]), boxes((LARGE, 1), ((0, 20, 32, 24), 1)) == 1
    rle = {"size": [HEIGHT, WIDTH], "counts": counts(crowd)}
    document["annotations"].append({"id": 99, "image_id": 0, "segmentation": rle, "iscrowd": 1})
    text(root / "annotations" / "instances_train2017.json", document)
    image(root / "train2017" / "000000000009.jpg")
    return {"000000000009": boxes(((0, 20, 32, 24), 255), (LARGE, 1), (SMALL, 2))}


def davis(root: Path) -> Expected:
    ids = np.maximum(TWO, boxes(((0, 22, 32, 24), 255)))
    indexed_video(root, "JPEGImages/480p", "Annotations/480p", ids, ("bear", "bmx-bumps", "blackswan"))
    text(root / "ImageSets" / "2017" / "train.txt", "bear\nbmx-bumps\n")
    text(root / "ImageSets" / "2017" / "val.txt", "blackswan\n")
    return {"bear_00000": ids, "bmx-bumps_00000": ids}


def sa_v(root: Path) -> Expected:
    """A person, and a hand that lies in it."""
    hand = (4, 3, 7, 6)
    for frame in ("00000", "00001", "00004"):
        image(root / "JPEGImages_24fps" / "sav_000001" / f"{frame}.jpg")
    for number, box in (("000", LARGE), ("001", hand)):
        for frame in ("00000", "00004"):
            picture(root / "Annotations_6fps" / "sav_000001" / number / f"{frame}.png", boxes((box, 255)) > 0)
    return {"sav_000001_00000": boxes((LARGE, 1), (hand, 2))}


def voc(root: Path) -> Expected:
    folder, ids = root / "VOC2012", np.maximum(TWO, boxes(((15, 0, 16, 24), 255)))
    for name in ("2007_000032", "2007_000033"):
        image(folder / "JPEGImages" / f"{name}.jpg")
        picture(folder / "SegmentationObject" / f"{name}.png", ids, VOC_PALETTE)
    text(folder / "ImageSets" / "Segmentation" / "trainval.txt", "2007_000032\n")
    return {"2007_000032": ids}


TREES: Mapping[str, Callable[[Path], Expected]] = {
    "TrashCan": trashcan,
    "iShape": ishape,
    "ZeroWaste-f": zerowaste,
    "LVIS": lvis,
    "DOORS": doors,
    "PIDRay": pidray,
    "Plittersdorf": plittersdorf,
    "OVIS": ovis,
    "TimberSeg": timberseg,
    "NDD20": ndd20,
    "Cityscapes": cityscapes,
    "ADE20K": ade20k,
    "Hypersim": hypersim,
    "STREETS": streets,
    "NDISPark": ndispark,
    "WoodScape": woodscape,
    "IBD": ibd,
    "DRAM": dram,
    "BBBC038v1": bbbc,
    "PPDLS": ppdls,
    "GTEA": gtea,
    "EgoHOS": egohos,
    "VISOR": visor,
    "MOSE": mose,
    "COCO": coco2017,
    "DAVIS": davis,
    "SA-V": sa_v,
    "VOC": voc,
}
