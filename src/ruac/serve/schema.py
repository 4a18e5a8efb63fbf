"""The JSON that goes in and out, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ruac.serve.settings import MAX_GRID, MAX_POINTS, MAX_PROMPTS
from ruac.serve.spool import ID

Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(gt=0, le=1)]
ID_PATTERN = f"^{ID.pattern}$"


class _In(BaseModel):
    # a misspelt name would otherwise be ignored, and the answer be to another question
    model_config = ConfigDict(extra="forbid", strict=True)


class PromptIn(_In):
    """What is said about one object, in pixels of the image: a point, a box or an earlier mask at least."""

    point_coords: Annotated[
        list[Annotated[list[Number], Field(min_length=2, max_length=2)]] | None,
        Field(max_length=MAX_POINTS, description="[x, y] of each point"),
    ] = None
    point_labels: Annotated[
        list[Annotated[int, Field(ge=0, le=1)]] | None,
        Field(max_length=MAX_POINTS, description="of each point: 1 on the object, 0 beside it; all 1 if left out"),
    ] = None
    box: Annotated[list[Number] | None, Field(min_length=4, max_length=4, description="[x0, y0, x1, y1], around the object")] = (
        None
    )
    mask_input: Annotated[
        str | None,
        Field(max_length=2**21, description="low_res_logits of an earlier answer about this image, to be refined"),
    ] = None


class _AskIn(_In):
    uncertainty: Annotated[
        Literal["none", "png16", "bands"],
        Field(description="a 16-bit PNG, in which 65535 is 1 bit, or the areas above some levels as run lengths"),
    ] = "none"
    levels: Annotated[list[Level], Field(min_length=1, max_length=8, description="in bits, of the bands")] = [
        0.25,
        0.5,
        0.75,
        0.9,
    ]


class PredictIn(_AskIn):
    prompts: Annotated[list[PromptIn], Field(min_length=1, max_length=MAX_PROMPTS, description="one an object")]
    multimask_output: Annotated[
        bool, Field(description="three candidate masks an object, the best first, instead of the one that is meant most likely")
    ] = False
    low_res_logits: Annotated[bool, Field(description="whether to send what a next prompt may have as its mask_input")] = False


class EverythingIn(_AskIn):
    grid: Annotated[int, Field(ge=1, le=MAX_GRID, description="clicks along the longer side of the image")] = 16
    least: Annotated[Share, Field(description="expected IoU below which an object is left out")] = 0.7
    overlap: Annotated[Share, Field(description="IoU of two masks above which they are the same object")] = 0.7
    parts: Annotated[bool, Field(description="whether an object that lies within another is listed")] = True


class ImageOut(BaseModel):
    id: Annotated[str, Field(pattern=ID_PATTERN, description="SHA-256 of the file, the same for the same file")]
    width: int
    height: int
    kept_s: Annotated[float, Field(description="seconds after its last use that the image is kept")]


class Rle(BaseModel):
    """Run lengths as COCO's tools write them, column by column."""

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="[height, width]")]
    counts: str


class Band(BaseModel):
    at_least: Annotated[float, Field(description="bits")]
    rle: Rle


class UncertaintyOut(BaseModel):
    """One of the two."""

    png16: Annotated[str | None, Field(description="base64 of a PNG")] = None
    bands: list[Band] | None = None


class Click(BaseModel):
    x: int
    y: int
    label: Annotated[int, Field(description="1: add, 0: take away, for someone who sees that the mask is wrong there")]


class MeanUncertainty(BaseModel):
    """In bits."""

    image: float
    band: Annotated[float | None, Field(description="along the outline; null of an empty mask")]


class MaskOut(BaseModel):
    rle: Rle
    area: Annotated[int, Field(description="pixels")]
    score: Annotated[float, Field(description="IoU with the truth as the decoder guesses it")]
    expected_iou: Annotated[float, Field(description="IoU with the truth that the probabilities of the pixels expect")]
    mean_uncertainty: MeanUncertainty
    next_click: Annotated[Click, Field(description="where a click is expected to help most")]
    uncertainty: UncertaintyOut | None
    low_res_logits: Annotated[str | None, Field(description="base64 of little-endian float16, a square")] = None


class BoundsOut(BaseModel):
    """The two masks that a calibration gives: the inner one is hardly ever beside the object, the outer one hardly ever misses it."""

    inner: Rle
    outer: Rle
    alpha: float
    holds: Annotated[bool, Field(description="whether the prompt is of the kind that the promise is for")]
    words: str


class PredictionOut(BaseModel):
    """Of one prompt. bounds: of the first mask, from a server that has a calibration."""

    masks: list[MaskOut]
    object_score: Annotated[float | None, Field(description="that there is an object at all; null of a model that does not say")]
    bounds: BoundsOut | None


class PredictOut(BaseModel):
    """In the order of the prompts."""

    predictions: list[PredictionOut]


class EverythingOut(BaseModel):
    """The highest expected IoU first."""

    objects: list[MaskOut]


class HealthOut(BaseModel):
    status: Literal["ok"]
    model: str
    model_sha256: str
    calibrated: bool
    ruac: Annotated[str, Field(description="version")]


class Problem(BaseModel):
    detail: Annotated[str, Field(description="in a line, what is wrong and what to do")]
