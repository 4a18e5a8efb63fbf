"""The evaluation's egocentric pictures: hands, and what they hold."""

from __future__ import annotations

from ruac.data.domain import Domain
from ruac.data.readers_maps import ColourMaps, IdMaps
from ruac.data.readers_polygons import VISOR, PolygonJson

EGOCENTRIC = (
    Domain(
        name="GTEA",
        title="Georgia Tech Egocentric Activities, hand masks",
        group="egocentric",
        home="https://cbs.ic.gatech.edu/fpv/",
        licence="not verified; see the home page",
        citation="Fathi, Ren, Rehg: Learning to recognize objects in egocentric activities, CVPR 2011; Li, Ye, Rehg: Delving into "
        "egocentric actions, CVPR 2015",
        split="all 663 images of GTEA",
        layout=(
            "ROOT: the unpacked hand2K_dataset.zip",
            "ROOT/GTEA/Images/<name>.jpg",
            "ROOT/GTEA/Masks/<name>.png",
        ),
        reader=ColourMaps((("GTEA/Masks/*.png", "GTEA/Images/{0}.jpg"),)),
        verified="folders and counts against an inventory of the archive and users' loaders. Not checked: licence, the exact values "
        "of the masks, which label left, right and intersecting hands; any colour but black is taken as a hand",
        notes="Frames of several videos of four people. Segment Anything had 652 images with 1,208 hands.",
    ),
    Domain(
        name="EgoHOS",
        title="Egocentric hand-object segmentation",
        group="egocentric",
        home="https://github.com/owenzlz/EgoHOS",
        licence="code MIT; the videos' own terms (Ego4D, EPIC-KITCHENS, THU-READ)",
        citation="Zhang, Zhou, Stent, Shi: Fine-grained egocentric hand-object segmentation: dataset, model, and applications, "
        "ECCV 2022",
        split="train",
        layout=("ROOT: the folder of the data set", "ROOT/train/image/<name>.jpg", "ROOT/train/label/<name>.png"),
        reader=IdMaps((("train/label/*.png", "train/image/{0}.jpg"),), ignored=()),
        verified="layout and encoding (1, 2 hands, 3 to 8 objects) against the README of owenzlz/EgoHOS; the suffix of the images "
        "against its scripts. Not checked: a licence of the data",
        notes="Segment Anything took only the pictures from Ego4D and THU-READ; which those are is not known to this entry.",
    ),
    Domain(
        name="VISOR",
        title="EPIC-KITCHENS VISOR, sparse annotations",
        group="egocentric",
        home="https://epic-kitchens.github.io/VISOR/",
        licence="CC BY-NC 4.0",
        citation="Darkhalil, Shan, Zhu, Ma, Kar, Higgins, Fidler, Fouhey, Damen: EPIC-KITCHENS VISOR benchmark: video segmentations "
        "and object relations, NeurIPS 2022",
        split="val",
        layout=(
            "ROOT: the unpacked archive, the frames' zip files unpacked to folders of their names",
            "ROOT/GroundTruth-SparseAnnotations/annotations/val/P01_107.json ...",
            "ROOT/GroundTruth-SparseAnnotations/rgb_frames/val/P01/P01_107/P01_107_frame_0000000140.jpg ...",
        ),
        reader=PolygonJson(
            (
                (
                    "GroundTruth-SparseAnnotations/annotations/val/*.json",
                    "GroundTruth-SparseAnnotations/rgb_frames/val/*/*",
                ),
            ),
            words=VISOR,
            parts="parity",
            first_frame_only=True,
        ),
        verified="layout, keys and licence against the converter of dataset-ninja/epic-kitchens-visor; how polygons become masks "
        "against epic-kitchens/VISOR-VIS",
        notes="Of every subsequence the first frame. A polygon inside another one of the same object is a hole.",
    ),
)
