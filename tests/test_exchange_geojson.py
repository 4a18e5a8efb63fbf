"""Labels of georeferenced pictures as GeoJSON, and back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from label_sets import FACTS, MASKS, cell, masks_of, set_of
from PIL import Image
from rasterio import features, warp

from ruac.exchange import geojson
from ruac.exchange.labelset import LabelSet, with_area

# 10 m pixels in UTM 33, half a metre in turned Web Mercator, degrees, and across the 180th meridian
PLACES = {
    "EPSG:32633": rasterio.Affine(10, 0, 500_000, 0, -10, 5_800_000),
    "EPSG:3857": rasterio.Affine(0.5, 0.1, 1_490_000, 0.1, -0.5, 6_890_000),
    "EPSG:4326": rasterio.Affine(1e-4, 0, -70.5, 0, -1e-4, -33.2),
    "EPSG:32601": rasterio.Affine(1000, 0, 280_000, 0, -1000, 6_000_000),
}


def write_tiff(path: Path, crs: str | None, size: tuple[int, int] = (60, 80)) -> None:
    place: dict[str, Any] = {} if crs is None else {"crs": crs, "transform": PLACES[crs]}
    with rasterio.open(path, "w", driver="GTiff", width=size[1], height=size[0], count=1, dtype="uint8", **place) as file:
        file.write(np.full((1, *size), 7, np.uint8))


def there(labels: LabelSet, folder: Path) -> dict[str, Any]:
    content, _, problems = geojson.write(labels, folder)
    assert problems == ()
    return json.loads(content)


@pytest.mark.parametrize("crs", PLACES)
def test_mask_comes_back_from_every_coordinate_system(tmp_path: Path, crs: str) -> None:
    write_tiff(tmp_path / "a.tif", crs)
    data = there(set_of(cell(), name="a.tif", **FACTS), tmp_path)
    reading = geojson.read(data, tmp_path)
    assert not reading.problems
    (picture,) = reading.labels.pictures
    assert picture.objects[0].facts == FACTS
    assert picture.objects[0].label == "cat"
    (mask,) = masks_of(reading.labels)
    if crs == "EPSG:32601":
        # the cut at the meridian is a straight line that touches pixels on its way
        assert (mask ^ cell()).sum() <= 0.01 * cell().sum()
        assert data["features"][0]["geometry"]["type"] == "MultiPolygon"
    else:
        np.testing.assert_array_equal(mask, cell())


@settings(max_examples=50)
@given(mask=MASKS)
def test_any_mask_comes_back(mask: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tiff")
    write_tiff(folder / "a.tif", "EPSG:32633", mask.shape)
    labels, _ = with_area(set_of(mask, name="a.tif"))
    reading = geojson.read(there(labels, folder), folder)
    assert not reading.problems
    assert len(masks_of(reading.labels)) == mask.any()
    for back in masks_of(reading.labels):
        np.testing.assert_array_equal(back, mask)


def test_rasterio_burns_the_same_mask(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", "EPSG:32633")
    geometry = there(set_of(cell(), name="a.tif"), tmp_path)["features"][0]["geometry"]
    local = warp.transform_geom("EPSG:4326", "EPSG:32633", geometry)
    burnt = features.rasterize([local], out_shape=(60, 80), transform=PLACES["EPSG:32633"])
    np.testing.assert_array_equal(burnt.astype(bool), cell())


def test_rings_are_closed_and_turn_as_the_rfc_says(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", "EPSG:4326")
    geometry = there(set_of(cell(), name="a.tif"), tmp_path)["features"][0]["geometry"]
    assert [len(part) for part in geometry["coordinates"]] == [2, 1]
    outer, hole = (np.array(ring) for ring in geometry["coordinates"][0])
    for ring, sign in ((outer, 1), (hole, -1)):
        np.testing.assert_array_equal(ring[0], ring[-1])
        x, y = (ring - ring[0]).T
        assert np.sign((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) == sign
    assert np.allclose(outer.min(0), [-70.5 + 10e-4, -33.2 - 56e-4], atol=1e-9)


def test_picture_that_is_nowhere_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", "EPSG:4326")
    write_tiff(tmp_path / "b.tif", None)
    Image.new("RGB", (80, 60)).save(tmp_path / "c.png")
    pictures = [set_of(cell(), name=name).pictures[0] for name in ("a.tif", "b.tif", "c.png", "gone.tif", "../x.tif")]
    content, written, problems = geojson.write(LabelSet(tuple(pictures), ("cat",)), tmp_path)
    assert len(json.loads(content)["features"]) == 1
    assert [picture.file_name for picture in written.pictures] == ["a.tif"]
    messages = ("b.tif: not georeferenced", "c.png: not a georeferenced TIFF", "gone.tif: cannot be read", "leads out")
    assert len(problems) == 4
    for message, problem in zip(messages, problems, strict=True):
        assert message in problem
        assert "\n" not in problem


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"type": "Polygon", "coordinates": [[[500_000, 5_800_000]] * 4]}, "degrees"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [1, 2]]]}, "less than four"),
        ({"type": "Polygon", "coordinates": [[[1, None]] * 4]}, "degrees"),
        ({"type": "Polygon", "coordinates": ["text"]}, "without rings|less than four|no list"),
        ({"type": "Polygon", "coordinates": []}, "without rings"),
        ({"type": "Polygon"}, "without rings"),
        ({"type": "Polygon", "coordinates": [[{"x": 1}] * 4]}, "less than four"),
        ({"type": "Polygon", "coordinates": [[[100, 50], [101, 50], [101, 51], [100, 50]]]}, "far outside"),
        (None, "no feature with a geometry"),
    ],
)
def test_broken_features_are_named_and_the_others_are_read(tmp_path: Path, geometry: Any, message: str) -> None:
    write_tiff(tmp_path / "a.tif", "EPSG:4326")
    data = there(set_of(cell(), name="a.tif"), tmp_path)
    point = {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [0, 0]}}
    data["features"] = [{"type": "Feature", "properties": {}, "geometry": geometry}, point, *data["features"]]
    reading = geojson.read(data, tmp_path)
    assert len(reading.problems) == 1
    assert reading.problems[0].startswith("feature 1: ")
    assert re.search(message, reading.problems[0])
    assert (reading.labels.count, reading.skipped) == (1, 1)


def test_without_rasterio_that_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiff(tmp_path / "a.tif", "EPSG:4326")
    labels = LabelSet(set_of(cell(), name="a.tif").pictures * 2, ("cat",))
    data = there(labels, tmp_path)
    monkeypatch.setattr(geojson, "find_spec", lambda name: None)
    for act in (lambda: geojson.write(labels, tmp_path), lambda: geojson.read(data, tmp_path)):
        with pytest.raises(ValueError, match=r"^GeoJSON needs rasterio: pip install 'ruac\[geo\]'$"):
            act()
