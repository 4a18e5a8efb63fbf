"""The evaluation's scenes: many things in one picture, from streets, rooms, roofs and paintings."""

from __future__ import annotations

from ruac.data.domain import Domain
from ruac.data.readers import CocoJson
from ruac.data.readers_maps import ColourMaps, Hdf5Maps, IdMaps
from ruac.data.readers_polygons import VIA, WOODSCAPE, PolygonJson

SCENES = (
    Domain(
        name="Cityscapes",
        title="Cityscapes, fine annotations",
        group="scenes",
        home="https://www.cityscapes-dataset.com/",
        licence="own terms, non-commercial",
        citation="Cordts, Omran, Ramos, Rehfeld, Enzweiler, Benenson, Franke, Roth, Schiele: The Cityscapes dataset for semantic "
        "urban scene understanding, CVPR 2016",
        split="val",
        layout=(
            "ROOT: any folder with these two",
            "ROOT/gtFine/val/<city>/<city>_<sequence>_<frame>_gtFine_instanceIds.png",
            "ROOT/leftImg8bit/val/<city>/<city>_<sequence>_<frame>_leftImg8bit.png",
        ),
        # unlabelled, ego vehicle, border, out of region; and groups of things that nobody could tell apart
        reader=IdMaps(
            (("gtFine/val/*/*_gtFine_instanceIds.png", "leftImg8bit/val/{0}/{1}_leftImg8bit.png"),),
            ignored=(0, 1, 2, 3, *range(24, 34)),
            lowest=1000,
        ),
        verified="layout and encoding against the README and json2instanceImg.py of mcordts/cityscapesScripts",
        notes="Instances only (class times 1000 and more); stuff is background here, while Segment Anything asked for it, too.",
    ),
    Domain(
        name="ADE20K",
        title="ADE20K, full annotations",
        group="scenes",
        home="https://ade20k.csail.mit.edu/",
        licence="own terms, research and education",
        citation="Zhou, Zhao, Puig, Xiao, Fidler, Barriuso, Torralba: Semantic understanding of scenes through the ADE20K dataset, "
        "IJCV 127(3), 2019",
        split="validation",
        layout=(
            "ROOT: the folder 'ADE20K_2021_17_01' (or 'ADE20K_2016_07_26')",
            "ROOT/images/ADE/validation/<kind>/<scene>/ADE_val_00000001.jpg",
            "ROOT/images/ADE/validation/<kind>/<scene>/ADE_val_00000001_seg.png",
        ),
        reader=ColourMaps((("images/**/ADE_val_*_seg.png", "images/{0}/ADE_val_{1}.jpg"),), background=(), ignored=((0, 0, 0),)),
        verified="layout and encoding against the README, utils_ade20k.py and the sample picture of CSAILVision/ADE20K, where every "
        "object has a colour of its own; the names of validation files are inferred from those of training",
        notes="Whole objects and stuff; the parts (_parts_<level>.png) are not read, though Segment Anything asked for them. What is "
        "black is unlabelled and ignored.",
    ),
    Domain(
        name="Hypersim",
        title="Hypersim: rendered rooms",
        group="scenes",
        home="https://github.com/apple/ml-hypersim",
        licence="CC BY-SA 3.0",
        citation="Roberts, Ramapuram, Ranjan, Kumar, Bautista, Paczan, Webb, Susskind: Hypersim: a photorealistic synthetic dataset "
        "for holistic indoor scene understanding, ICCV 2021",
        split="all scenes in ROOT",
        layout=(
            "ROOT: a folder of unpacked scenes",
            "ROOT/ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.semantic_instance.hdf5",
            "ROOT/ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg",
        ),
        reader=Hdf5Maps(
            (
                (
                    "*/images/*_geometry_hdf5/frame.*.semantic_instance.hdf5",
                    "{0}/images/{1}_final_preview/frame.{2}.tonemap.jpg",
                ),
            )
        ),
        verified="layout and licence against the README of apple/ml-hypersim and the listing in its contrib/99991; that -1 means no "
        "object is not stated there",
        notes="Needs h5py. The lossy previews are read as pictures, since the lossless ones would have to be tone-mapped first.",
    ),
    Domain(
        name="STREETS",
        title="STREETS: vehicles before traffic cameras",
        group="scenes",
        home="https://databank.illinois.edu/datasets/IDB-3671567",
        licence="not verified; see the home page",
        citation="Snyder, Do: STREETS: a novel camera network dataset for traffic flow, NeurIPS 2019",
        split="all annotated images",
        layout=(
            "ROOT: any folder with the unpacked vehicleannotations.zip",
            "ROOT/vehicleannotations/annotations/vehicle-annotations.json",
            "ROOT/vehicleannotations/images/<view>-<number>.jpg",
        ),
        reader=PolygonJson(
            (("vehicleannotations/annotations/vehicle-annotations.json", "vehicleannotations/images"),), words=VIA
        ),
        verified="layout and VIA's keys against the authors' benchmark in corey-snyder/STREETS. Not checked: licence",
        notes="A VIA file of the first version, whose regions are numbered. Names have blanks and brackets.",
    ),
    Domain(
        name="NDISPark",
        title="Night and Day Instance Segmented Park",
        group="scenes",
        home="https://zenodo.org/record/6560823",
        licence="not verified; see the home page",
        citation="Ciampi, Santiago, Costeira, Gennaro, Amato: Domain adaptation for traffic density estimation, VISIGRAPP 2021; "
        "and Zenodo, 2022, doi:10.5281/zenodo.6560823",
        split="validation",
        layout=(
            "ROOT: the unpacked folder 'ndis_park'",
            "ROOT/validation/val_coco_annotations.json",
            "ROOT/validation/imgs/<camera>_<time>.jpg",
        ),
        reader=CocoJson((("validation/val_coco_annotations.json", "validation/imgs"),)),
        verified="layout against three users' scripts and a preprocessing report with its counts (112, 30, 117 images). Not checked: "
        "licence, the archive",
        notes="The released RUAC evaluation reads validation, Segment Anything's train. test has counts only.",
    ),
    Domain(
        name="WoodScape",
        title="WoodScape: fisheye cameras on cars",
        group="scenes",
        home="https://woodscape.valeo.com/",
        licence="own terms of Valeo",
        citation="Yogamani et al.: WoodScape: a multi-task, multi-camera fisheye dataset for autonomous driving, ICCV 2019",
        split="the public 8.2 k images",
        layout=(
            "ROOT: any folder with these two",
            "ROOT/rgb_images/00001_FV.png ...",
            "ROOT/instance_annotations/00001_FV.json ...",
        ),
        reader=PolygonJson((("instance_annotations/*.json", "rgb_images"),), words=WOODSCAPE, ignored=("void",)),
        verified="layout against the README of valeoai/WoodScape, keys against its parsers and the converter of "
        "dataset-ninja/woodscape, licence against the latter. What Segment Anything calls set 1 is taken to be this release",
        notes="Stuff such as road_surface, sky and ego_vehicle is outlined and an object, too; void is ignored.",
    ),
    Domain(
        name="IBD",
        title="InstanceBuilding 2D: roofs from drones",
        group="scenes",
        home="https://californiachen.github.io/datasets/InstanceBuilding",
        licence="free for non-commercial use",
        citation="Chen, Xu, Lu, Liang, Nan: 3D instance segmentation of MVS buildings, IEEE Transactions on Geoscience and Remote "
        "Sensing, 2022, doi:10.1109/TGRS.2022.3183567",
        split="val",
        layout=(
            "ROOT: the folder of the 2D annotation",
            "ROOT/val/<name>.png or .jpg",
            "ROOT/val_labels/<name>.png, a colour or a number an object",
        ),
        reader=ColourMaps((("val_labels/*.png", "val/{0}.*"),)),
        verified="licence, size and citation against the project page in CaliforniaChen/CaliforniaChen.github.io. The layout is NOT "
        "verified: it is that of one third-party evaluation script, whose authors may have converted the labels",
        notes="The released RUAC evaluation reads val, Segment Anything's train (467 images).",
    ),
    Domain(
        name="DRAM",
        title="DRAM: diverse realism in art movements",
        group="scenes",
        home="https://nadavc220.github.io/ssiap/",
        licence="research only, no commercial use",
        citation="Cohen, Newman, Shamir: Semantic segmentation in art paintings, Computer Graphics Forum (Eurographics), 2022, "
        "doi:10.1111/cgf.14473",
        split="test",
        layout=(
            "ROOT: the folder 'DRAM_processed' (renamed 'DRAM_500' by its authors)",
            "ROOT/test/<movement>/<artist>/<name>.jpg, and ROOT/test/unseen/<movement>/<artist>/<name>.jpg",
            "ROOT/labels/<movement>/<artist>/<name>.png, and so on",
        ),
        reader=IdMaps((("labels/**/*.png", "test/{0}/{1}.jpg"),)),
        verified="layout, encoding (numbers of PASCAL VOC's classes) and terms against README and core/datasets/dram.py of "
        "Nadavc220/SemanticSegmentationInArtPaintings",
        notes="Classes, not instances: everything of one class in a picture is one object.",
    ),
)
