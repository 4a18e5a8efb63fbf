"""The evaluation's objects: single kinds of things, in places where nobody trained."""

from __future__ import annotations

from ruac.data.domain import Domain
from ruac.data.readers import CocoJson, CocoVideoJson
from ruac.data.readers_maps import IdMaps
from ruac.data.readers_polygons import VIA, PolygonJson

OBJECTS = (
    Domain(
        name="TrashCan",
        title="TrashCan 1.0, instance version",
        group="objects",
        home="https://conservancy.umn.edu/handle/11299/214865",
        licence="research and teaching, credit to JAMSTEC",
        citation="Hong, Fulton, Sattar: TrashCan: a semantically-segmented dataset towards visual detection of marine debris, "
        "arXiv:2007.08097, 2020",
        split="val",
        layout=(
            "ROOT: the folder 'dataset' of the archive",
            "ROOT/instance_version/instances_val_trashcan.json",
            "ROOT/instance_version/val/vid_000002_frame0000013.jpg ...",
        ),
        reader=CocoJson((("instance_version/instances_val_trashcan.json", "instance_version/val"),)),
        verified="layout and file names against the archive's README and files in xiehou1314/TrashCan and the converter of "
        "dataset-ninja/trash-can; licence against the latter's copy of LICENSE.txt. Not seen: the JSON file itself",
        notes="The released RUAC evaluation reads val; Segment Anything's reads train. Commercial use needs JAMSTEC's consent.",
    ),
    Domain(
        name="iShape",
        title="iShape: irregular shape instance segmentation",
        group="objects",
        home="https://ishape.github.io/",
        licence="CC0",
        citation="Yang, Yan, He, Sun, Huang, Zhang, Huang, Fan: iShape: a first step towards irregular shape instance "
        "segmentation, 2021",
        split="val of all six parts",
        layout=(
            "ROOT: the folder 'ishape_dataset'",
            "ROOT/antenna/val/image/<name>.jpg or .png; so branch, fence, hanger, log, wire",
            "ROOT/antenna/val/instance_map/<name>.png",
        ),
        reader=IdMaps((("*/val/instance_map/*.png", "{0}/val/image/{1}.*"),), ignored=()),
        verified="layout, 16-bit encoding and licence against dataset_README.md of iShape/iShape.github.io. Not seen: the suffix of "
        "the images, either is taken",
        notes="Maps of 16 bits, a number an object. The same objects are there as COCO run lengths.",
    ),
    Domain(
        name="ZeroWaste-f",
        title="ZeroWaste: fully annotated frames",
        group="objects",
        home="https://zenodo.org/record/4899927",
        licence="CC BY-NC 4.0",
        citation="Bashkirova, Abdelfattah, Zhu, Akl, Alladkani, Hu, Ablavsky, Calli, Bargal, Saenko: ZeroWaste dataset: towards "
        "automated waste recycling, arXiv:2106.02740, 2021",
        split="train",
        layout=(
            "ROOT: the folder 'zerowaste-f' or 'zerowaste-f-final' of the archive",
            "ROOT/splits_final_deblurred/train/labels.json",
            "ROOT/splits_final_deblurred/train/data/<name>.PNG",
        ),
        reader=CocoJson((("splits_final_deblurred/train/labels.json", "splits_final_deblurred/train/data"),)),
        verified="licence and record against the README of dbash/zerowaste; layout against users' configurations (UlinduP/SegTTO "
        "and others). Not seen: the archive",
        notes="Frames of 1920 x 1080; sem_seg beside it has classes, which are not objects.",
    ),
    Domain(
        name="LVIS",
        title="LVIS v0.5",
        group="objects",
        home="https://www.lvisdataset.org/",
        licence="annotations CC BY 4.0, images Flickr terms",
        citation="Gupta, Dollár, Girshick: LVIS: a dataset for large vocabulary instance segmentation, CVPR 2019",
        split="val (v0.5)",
        layout=(
            "ROOT: any folder with these two, the images being COCO's",
            "ROOT/annotations/lvis_v0.5_val.json",
            "ROOT/val2017/000000000139.jpg ...",
        ),
        reader=CocoJson((("annotations/lvis_v0.5_val.json", "val2017"),), names="coco_url"),
        verified="keys, names of images and polygons against data/lvis_val_100.json of lvis-dataset/lvis-api; folders against "
        "the configurations of several detectors. Not checked: the licence",
        notes="Polygons without holes by design. Categories that are not exhaustively annotated do not matter to prompted objects.",
    ),
    Domain(
        name="DOORS",
        title="DOORS: dataset for boulders segmentation, DS1",
        group="objects",
        home="https://doi.org/10.5281/zenodo.7107409",
        licence="CC BY 4.0",
        citation="Pugliatti, Topputo: DOORS: dataset for boulders segmentation, Zenodo, 2022, doi:10.5281/zenodo.7107409",
        split="DS1, tests Te1 and Te2",
        layout=(
            "ROOT: the folder 'DOORS' of the archive",
            "ROOT/Segmentation/DS1/DS/img/<name>.png",
            "ROOT/Segmentation/DS1/DS/mask/<name>.png",
            "ROOT/Segmentation/DS1/DS/Te1.txt, Te2.txt: names of images",
        ),
        reader=IdMaps(
            (("Segmentation/DS1/DS/mask/*.png", "Segmentation/DS1/DS/img/{0}.png"),),
            ignored=(),
            lowest=255,
            lists=("Segmentation/DS1/DS/Te1.txt", "Segmentation/DS1/DS/Te2.txt"),
        ),
        verified="layout, encoding (255 is the boulder) and licence against the converter of dataset-ninja/doors. That Segment "
        "Anything's 10,000 images of DS1 are these two tests is inferred from their number",
        notes="Rendered, one boulder a picture.",
    ),
    Domain(
        name="PIDRay",
        title="PIDray: prohibited items in X-ray images",
        group="objects",
        home="https://github.com/bywang2018/security-dataset",
        licence="academic use only",
        citation="Wang, Zhang, Wen, Liu, Wu: Towards real-world prohibited item detection: a large-scale X-ray benchmark, ICCV 2021",
        split="test (hard)",
        layout=("ROOT: the folder 'pidray'", "ROOT/annotations/xray_test_hard.json", "ROOT/hard/xray_hard00000.png ..."),
        reader=CocoJson((("annotations/xray_test_hard.json", "hard"),)),
        verified="licence and citation against the README of bywang2018/security-dataset; layout against a listing and eight "
        "users' scripts. Not seen: the JSON file itself",
    ),
    Domain(
        name="Plittersdorf",
        title="Plittersdorf: animals before a stereo camera trap",
        group="objects",
        home="https://timm.haucke.xyz/datasets/plittersdorf",
        licence="not verified; see the home page",
        citation="Haucke, Kühl, Steinhage: SOCRATES: introducing depth in visual wildlife monitoring using stereo vision, "
        "Sensors 22(23), 9082, 2022",
        split="test",
        layout=("ROOT: the folder 'plittersdorf_instance_segmentation_coco'", "ROOT/test.json", "ROOT/images/<name>.jpg"),
        reader=CocoJson((("test.json", "images"),)),
        verified="citation and how the COCO files are made against timmh/socrates; folder and file names only against one "
        "third-party evaluation script. Not checked: licence, the archive",
        notes="Segment Anything read train, val and test together, 187 images.",
    ),
    Domain(
        name="OVIS",
        title="OVIS: occluded video instance segmentation",
        group="objects",
        home="https://songbai.site/ovis/",
        licence="not verified; see the home page",
        citation="Qi, Gao, Hu, Wang, Liu, Bai, Belongie, Yuille, Torr, Bai: Occluded video instance segmentation: a benchmark, "
        "IJCV 2022",
        split="train (the only part with public labels)",
        layout=(
            "ROOT: any folder with these two",
            "ROOT/annotations_train.json",
            "ROOT/train/<video>/img_0000001.jpg ...",
        ),
        reader=CocoVideoJson((("annotations_train.json", "train"),), first_frame_only=True),
        verified="format (YouTube-VIS) against the project's dataset page, names of file and folder against users' READMEs. "
        "Not checked: licence, the names of the frames, which the JSON file gives",
        notes="Of every video the first frame that shows an object. Segment Anything drew frames at random.",
    ),
    Domain(
        name="TimberSeg",
        title="TimberSeg 1.0: logs in piles",
        group="objects",
        home="https://data.mendeley.com/datasets/y5npsm3gkj/2",
        licence="CC BY 4.0",
        citation="Fortin, Gamache, Grondin, Pomerleau, Giguère: Instance segmentation for autonomous log grasping in forestry "
        "operations, IROS 2022",
        split="all",
        layout=(
            "ROOT: the unpacked folder 'y5npsm3gkj-2'",
            "ROOT/prescaled/coco_annotation.json",
            "ROOT/prescaled/images/<name>.png",
        ),
        reader=CocoJson((("prescaled/coco_annotation.json", "prescaled"),)),
        verified="layout against the authors' scripts (norlab-ulaval/logpiles_segmentation) and the converter of "
        "dataset-ninja/timber-seg, licence against the latter. That the JSON names images as images/<name>.png is inferred",
        notes="The prescaled half, which the authors recommend.",
    ),
    Domain(
        name="NDD20",
        title="Northumberland Dolphin Dataset 2020",
        group="objects",
        home="https://doi.org/10.25405/data.ncl.c.4982342",
        licence="CC BY-NC-SA 4.0",
        citation="Trotter, Atkinson, Sharpe, Richardson, McGough, Wright, Burville, Berggren: NDD20: a large-scale few-shot dolphin "
        "dataset for coarse and fine-grained categorisation, arXiv:2005.13359, 2020",
        split="all, above and below water",
        layout=(
            "ROOT: the folder 'NDD20' of the archive",
            "ROOT/ABOVE/<number>.jpg, ROOT/ABOVE_LABELS.json",
            "ROOT/BELOW/<number>.jpg, ROOT/BELOW_LABELS.json",
        ),
        reader=PolygonJson((("ABOVE_LABELS.json", "ABOVE"), ("BELOW_LABELS.json", "BELOW")), words=VIA),
        verified="layout, VIA's keys and licence against the converter of dataset-ninja/northumberland-dolphin and WildlifeDatasets",
        notes="VIA files; dolphins are outlined by polylines, which are taken as closed.",
    ),
)
