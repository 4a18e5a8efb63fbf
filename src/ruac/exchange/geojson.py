"""GeoJSON (RFC 7946) for pictures that know where on Earth they are: polygons with holes, in degrees of longitude and latitude.

Every corner of a mask's outline is carried over by the picture's own transform and coordinate system, so the way back gives the
same mask. rasterio, of the extra `geo`, reads those and changes coordinate systems.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruac.data.labels import Rle, Size, decode
from ruac.data.layout import inside
from ruac.data.runlengths import from_polygons
from ruac.exchange.labelset import LabelledObject, LabelSet, Picture, Reading, categories_of, read_facts
from ruac.exchange.outlines import Ring, parts_of
from ruac.exchange.parsing import text_of
from ruac.exchange.pictures import check_picture, pictures_in, size_of_picture

WGS84 = "EPSG:4326"
DIGITS = 9  # of a degree: a tenth of a millimetre


@dataclass(frozen=True)
class Georeference:
    """transform: from pixels (x, y) to the coordinate system crs, as rasterio has both."""

    transform: Any
    crs: Any

    def to_earth(self, ring: Ring) -> list[tuple[float, float]]:
        """In the picture's own coordinate system, the first point again at the end, as GeoJSON wants it."""
        x, y = self.transform @ ring.T
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        return [*points, points[0]]

    def to_pixels(self, degrees: NDArray[np.float64]) -> Ring:
        from rasterio.warp import transform

        x, y = (np.array(values) for values in transform(WGS84, self.crs, *degrees.T)[:2])
        return np.stack(~self.transform @ np.stack([x, y]), 1)


def write(labels: LabelSet, images: Path, tolerance: float = 0.0) -> tuple[bytes, LabelSet, tuple[str, ...]]:
    """A feature an object, the labels that are among them, and a line each picture that is not georeferenced or not in `images`.

    Raises ValueError when rasterio is not installed.
    """
    _require_rasterio()
    features, written, problems = [], [], []
    for picture in labels.pictures:
        try:
            georeference = open_georeference(check_picture(images, picture))
        except ValueError as error:
            problems.append(str(error))
            continue
        written.append(picture)
        for thing in picture.objects:
            properties = {"image": picture.file_name, "label": thing.label, **thing.numbers}
            geometry = _geometry(thing.mask, georeference, tolerance)
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    content = {"type": "FeatureCollection", "features": features}
    return (json.dumps(content, allow_nan=False) + "\n").encode(), replace(labels, pictures=tuple(written)), tuple(problems)


def read(data: dict[str, Any], images: Path) -> Reading:
    """Polygons of every feature, on the picture of the folder `images` that its property "image" names, or on the only one there.

    Raises ValueError when it is no GeoJSON, or rasterio is not installed.
    """
    _require_rasterio()
    files = {path.relative_to(images).as_posix(): path for path in pictures_in(images)}
    only = next(iter(files)) if len(files) == 1 else None
    features = data.get("features")
    if not isinstance(features, list):
        raise ValueError("no GeoJSON: it has no list 'features'")
    pictures: dict[str, Picture] = {}
    places: dict[str, Georeference] = {}
    problems: list[str] = []
    skipped = 0
    for number, feature in enumerate(features, start=1):
        try:
            properties, geometry = _feature(feature)
            if geometry.get("type") not in ("Polygon", "MultiPolygon"):
                skipped += 1
                continue
            name = text_of(properties.get("image", only), "image")
            if name not in pictures:
                path = inside(images, name)
                pictures[name] = Picture(name, size_of_picture(path), ())
                places[name] = open_georeference(path)
            if name not in places:
                raise ValueError(f"{name} is not georeferenced")
            thing = _object(properties, geometry, places[name], pictures[name].size)
            pictures[name] = replace(pictures[name], objects=(*pictures[name].objects, thing))
        except ValueError as error:
            problems.append(f"feature {number}: {error}")
    found = tuple(pictures.values())
    return Reading(LabelSet(found, categories_of(found)), tuple(problems), skipped)


def _require_rasterio() -> None:
    if find_spec("rasterio") is None:
        raise ValueError("GeoJSON needs rasterio: pip install 'ruac[geo]'")


def open_georeference(path: Path) -> Georeference:
    """Of a TIFF. Raises ValueError when it has none."""
    import rasterio
    from rasterio.errors import RasterioError, RasterioIOError

    try:
        with warnings.catch_warnings(action="ignore"), rasterio.open(path, driver="GTiff") as file:
            transform, crs = file.transform, file.crs
    except (RasterioError, RasterioIOError) as error:
        raise ValueError(f"{path}: not a georeferenced TIFF ({str(error).splitlines()[0]})") from None
    if crs is None or transform == rasterio.Affine.identity() or not transform.determinant:
        raise ValueError(f"{path}: not georeferenced; it needs a coordinate system and a transform")
    return Georeference(transform, crs)


def _geometry(rle: Rle, georeference: Georeference, tolerance: float) -> dict[str, Any]:
    from rasterio.warp import transform_geom

    polygons = [
        [georeference.to_earth(ring) for ring in (part.outer, *part.holes)] for part in parts_of(decode(rle), tolerance=tolerance)
    ]
    # cuts what crosses the 180th meridian
    geometry = transform_geom(georeference.crs, WGS84, {"type": "MultiPolygon", "coordinates": polygons})
    assert geometry is not None
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    oriented = [[_oriented(ring, counterclockwise=number == 0) for number, ring in enumerate(part)] for part in parts]
    if len(oriented) == 1:
        return {"type": "Polygon", "coordinates": oriented[0]}
    return {"type": "MultiPolygon", "coordinates": oriented}


def _oriented(ring: Any, counterclockwise: bool) -> list[list[float]]:
    """Outer rings counterclockwise, holes clockwise, as the RFC wants them."""
    points = np.array(ring, dtype=np.float64)[:, :2].round(DIGITS)
    x, y = (points - points[0]).T
    area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum()
    return (points if (area > 0) == counterclockwise else points[::-1]).tolist()


def _feature(feature: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its properties and its geometry."""
    properties, geometry = (feature.get(key) if isinstance(feature, dict) else None for key in ("properties", "geometry"))
    if not isinstance(geometry, dict) or not isinstance(properties or {}, dict):
        raise ValueError("no feature with a geometry")
    return properties or {}, geometry


def _object(properties: dict[str, Any], geometry: dict[str, Any], place: Georeference, size: Size) -> LabelledObject:
    coordinates = geometry.get("coordinates")
    parts: Any = [coordinates] if geometry["type"] == "Polygon" else coordinates
    if not isinstance(parts, list) or not parts or not all(isinstance(part, list) and part for part in parts):
        raise ValueError("a polygon without rings")
    rings = [place.to_pixels(_degrees(ring)) for part in parts for ring in part]
    # one line from ring to ring and back on the same way: by the even-odd rule a ring in another one is a hole
    closed = [np.concatenate([ring, ring[:1]]) for ring in rings]
    line = np.concatenate([*closed, *(ring[:1] for ring in closed[::-1])])
    mask, _ = from_polygons([line.ravel().tolist()], size)
    if mask is None:
        raise ValueError("a polygon without area")
    facts = read_facts({key: value for key, value in properties.items() if key not in ("image", "label")})
    return LabelledObject.of_mask(text_of(properties.get("label", "object"), "label"), mask, facts)


def _degrees(ring: Any) -> NDArray[np.float64]:
    try:
        points = np.array([point[:2] if isinstance(point, list) else None for point in ring], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a ring that is no list of positions") from None
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 4:
        raise ValueError("a ring of less than four positions")
    if not (np.abs(points) <= (180, 90)).all():
        raise ValueError("a position that is no longitude and latitude; GeoJSON is in degrees (WGS 84)")
    return points
