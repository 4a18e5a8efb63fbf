"""What is trained on: no part of the evaluation."""

from __future__ import annotations

from ruac.data.domain import Domain
from ruac.data.readers import CocoJson
from ruac.data.readers_maps import IdMaps, MaskFiles

SOURCES = (
    Domain(
        name="MOSE",
        title="MOSE: video object segmentation in complex scenes (v1)",
        group="source",
        home="https://henghuiding.github.io/MOSE/",
        licence="CC BY-NC-SA 4.0",
        citation="Ding, Liu, He, Jiang, Torr, Bai: MOSE: a new dataset for video object segmentation in complex scenes, ICCV 2023",
        split="train",
        layout=(
            "ROOT: the folder with the unpacked train.tar.gz",
            "ROOT/train/JPEGImages/<video>/00000.jpg ...",
            "ROOT/train/Annotations/<video>/00000.png ...",
        ),
        reader=IdMaps((("train/Annotations/*/*.png", "train/JPEGImages/{0}/{1}.jpg"),), first_frame_only=True),
        verified="layout, encoding and licence against MOSEv1/README.md of henghuiding/MOSE-api",
        notes="Indexed PNG as DAVIS has it. The paper trains on single frames of it. Of every video the first frame.",
    ),
    Domain(
        name="COCO",
        title="COCO 2017",
        group="source",
        home="https://cocodataset.org/",
        licence="annotations CC BY 4.0, images Flickr terms",
        citation="Lin, Maire, Belongie, Hays, Perona, Ramanan, Dollár, Zitnick: Microsoft COCO: common objects in context, ECCV 2014",
        split="train2017",
        layout=(
            "ROOT: any folder with these two",
            "ROOT/annotations/instances_train2017.json",
            "ROOT/train2017/000000000009.jpg ...",
        ),
        reader=CocoJson((("annotations/instances_train2017.json", "train2017"),)),
        verified="layout and encoding against YouHuang67/inter2former and pycocotools; the licence is the one commonly given",
        notes="Crowds are run lengths and ignored.",
    ),
    Domain(
        name="DAVIS",
        title="DAVIS 2017, 480p",
        group="source",
        home="https://davischallenge.org/",
        licence="CC BY-NC 4.0 as commonly given",
        citation="Pont-Tuset, Perazzi, Caelles, Arbeláez, Sorkine-Hornung, Van Gool: The 2017 DAVIS challenge on video object "
        "segmentation, arXiv:1704.00675, 2017",
        split="train",
        layout=(
            "ROOT: the folder 'DAVIS'",
            "ROOT/JPEGImages/480p/<video>/00000.jpg ...",
            "ROOT/Annotations/480p/<video>/00000.png ...",
            "ROOT/ImageSets/2017/train.txt: names of videos",
        ),
        reader=IdMaps(
            (("Annotations/480p/*/*.png", "JPEGImages/480p/{0}/{1}.jpg"),),
            lists=("ImageSets/2017/train.txt",),
            first_frame_only=True,
        ),
        verified="layout and encoding (255 is void) against davis2017/davis.py of davisvideochallenge/davis2017-evaluation. Not "
        "checked: the licence",
        notes="Of every video the first frame.",
    ),
    Domain(
        name="SA-V",
        title="Segment Anything Video, validation part",
        group="source",
        home="https://ai.meta.com/datasets/segment-anything-video/",
        licence="CC BY 4.0",
        citation="Ravi et al.: SAM 2: segment anything in images and videos, 2024",
        split="val",
        layout=(
            "ROOT: the folder 'sav_val'",
            "ROOT/JPEGImages_24fps/<video>/00000.jpg ...",
            "ROOT/Annotations_6fps/<video>/<object>/00000.png ...",
        ),
        reader=MaskFiles((("Annotations_6fps/*/*/*.png", "JPEGImages_24fps/{0}/{2}.jpg"),), first_frame_only=True),
        verified="layout, encoding and licence against sav_dataset/README.md of facebookresearch/sam2",
        notes="One file a mask, since objects overlap. The training part has videos and no frames; it is not read. Of every video "
        "the first frame.",
    ),
    Domain(
        name="VOC",
        title="PASCAL VOC 2012, objects",
        group="source",
        home="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        licence="Flickr terms; none named for the annotations",
        citation="Everingham, Van Gool, Williams, Winn, Zisserman: The PASCAL visual object classes challenge 2012",
        split="trainval (Segmentation)",
        layout=(
            "ROOT: the folder 'VOCdevkit'",
            "ROOT/VOC2012/JPEGImages/2007_000032.jpg ...",
            "ROOT/VOC2012/SegmentationObject/2007_000032.png ...",
            "ROOT/VOC2012/ImageSets/Segmentation/trainval.txt: names of images",
        ),
        reader=IdMaps(
            (("VOC2012/SegmentationObject/*.png", "VOC2012/JPEGImages/{0}.jpg"),),
            lists=("VOC2012/ImageSets/Segmentation/trainval.txt",),
        ),
        verified="licence and citation against dataset-ninja/pascal-voc-2012, folders against users' configurations. Not seen: the "
        "archive",
        notes="Indexed PNG; 255 is the seam around objects and ignored.",
    ),
)
