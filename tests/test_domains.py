"""Every data set of the registry, written in small exactly as it is published, becomes a set in our format with the same masks."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_domains_trees import HEIGHT, TREES, WIDTH

from ruac.data.convert import convert_domain
from ruac.data.domains import DOMAINS, EVALUATION, find_domain
from ruac.data.folder import FolderSet, read_mask
from ruac.data.image import read_image


class Hdf5File:
    """Of h5py, what reading one map needs, for machines without it; numpy's format in the file."""

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path

    def __enter__(self) -> Hdf5File:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __setitem__(self, name: str, values: NDArray[Any]) -> None:
        with self.path.open("wb") as file:
            np.savez(file, **{name: values})

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return np.load(self.path)[name]
        except ValueError as error:
            raise OSError(str(error)) from None


@pytest.fixture
def h5py(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("h5py") is None:
        module = ModuleType("h5py")
        module.__spec__ = ModuleSpec("h5py", None)
        module.__dict__["File"] = Hdf5File
        monkeypatch.setitem(sys.modules, "h5py", module)


def test_the_registry_has_the_papers_23_domains_and_the_sources() -> None:
    assert len(EVALUATION) == 23
    assert len(DOMAINS) == 28
    assert set(TREES) == set(DOMAINS)
    groups = [domain.group for domain in DOMAINS.values()]
    assert {group: groups.count(group) for group in groups} == {
        "objects": 10,
        "scenes": 8,
        "scientific": 2,
        "egocentric": 3,
        "source": 5,
    }


@pytest.mark.parametrize("name", DOMAINS)
def test_every_entry_says_all_there_is_to_know(name: str) -> None:
    domain = DOMAINS[name]
    assert domain.home.startswith("http")
    assert all(len(text) > 2 for text in (domain.title, domain.licence, domain.citation, domain.split, domain.verified))
    assert domain.layout[0].startswith("ROOT: ")
    assert all(line.startswith("ROOT/") for line in domain.layout[1:])
    assert Path(domain.name).name == domain.name


def test_names_are_found_in_any_case_and_the_nearest_is_suggested() -> None:
    assert find_domain("cityscapes").name == "Cityscapes"
    with pytest.raises(ValueError, match="no data set 'Cityscape'; did you mean Cityscapes"):
        find_domain("Cityscape")
    with pytest.raises(ValueError, match="did you mean"):
        find_domain("")


@pytest.mark.usefixtures("h5py")
@pytest.mark.parametrize("name", TREES)
def test_a_published_tree_becomes_a_set_with_the_same_masks(name: str, tmp_path: Path) -> None:
    expected = TREES[name](tmp_path / "published")
    outcome = convert_domain(DOMAINS[name], tmp_path / "published", tmp_path / "out", None, 0, lambda things, *_: things)
    assert not outcome.failed
    converted = FolderSet.open(tmp_path / "out")
    assert converted.name == name
    assert converted.meta["group"] == DOMAINS[name].group
    assert converted.meta["licence"] == DOMAINS[name].licence
    assert {sample.id for sample in converted.samples} == set(expected)
    for sample in converted.samples:
        np.testing.assert_array_equal(read_mask(sample.mask), expected[sample.id])
        assert read_image(sample.image).shape == (HEIGHT, WIDTH, 3)
        if sample.image.suffix == ".jpg":
            originals = {path.read_bytes() for path in (tmp_path / "published").rglob("*.jpg")}
            assert sample.image.read_bytes() in originals


@pytest.mark.parametrize("name", DOMAINS)
def test_an_empty_folder_is_told_the_expected_layout_in_a_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"missing; {name} is expected as ROOT: ") as caught:
        convert_domain(DOMAINS[name], tmp_path / "empty", tmp_path / "out", None, 0, lambda things, *_: things)
    assert str(caught.value).startswith(str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
