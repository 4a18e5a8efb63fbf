"""A few hundred of the inputs of benchmarks/fuzz.py, and any JSON at all: accepted, or refused in words."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ruac.calibrate.file import Calibration
from ruac.data.folder import read_meta
from ruac.evaluate.clickfile import ClickFile
from ruac.evaluate.results import read_results
from ruac.exchange.command import read_labels
from ruac.export import bundle
from ruac.label.part import Folder
from ruac.label.prompts import read_prompts

WORDS = re.findall(
    r"\w+",
    """images annotations categories id image_id file_name width height bbox segmentation size counts data result value type
    features geometry properties coordinates format name sets levels labels objects points box label masks pixels prompts origin""",
)
KEYS = st.text(max_size=4) | st.sampled_from(WORDS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
FILES = {
    "calibration.json": Calibration.read,
    "boxes.json": read_prompts,
    "labels.json": read_labels,
    "clicks.jsonl": ClickFile.read,
    "rows.jsonl": read_results,
    bundle.DESCRIPTION: lambda path: bundle.read(path.parent),
    "meta.json": lambda path: read_meta(path.parent),
    "parts/a.json": lambda path: Folder(path.parents[1]).load("a"),
}


@pytest.fixture(scope="module")
def labs() -> Iterator[list[Any]]:
    """Of benchmarks/fuzz.py, one a kind of file."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    import fuzz
    import fuzz_targets

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "made").mkdir()
        found = fuzz_targets.targets(Path(name) / "made")
        yield [fuzz.Lab(target, Path(name) / str(number), 1, Path(name) / "out") for number, target in enumerate(found)]
    sys.path.remove(folder)


@settings(max_examples=300, derandomize=True)
@given(data=st.data())
def test_broken_files_are_read_or_refused(labs: list[Any], data: st.DataObject) -> None:
    import fuzz

    lab = data.draw(st.sampled_from(labs))
    number = data.draw(st.integers(1, 10**6))
    lab._lay_out()
    lab._put(fuzz.content_of(lab.target, lab.seed, number))
    with warnings.catch_warnings(action="ignore"):
        problem = ""
        try:
            lab.target.read(lab.folder)
        except Exception as error:  # noqa: BLE001  that it is one of ours is what is tested
            problem = lab._not_a_refusal(error)
    assert problem == "", f"{lab.target.name} {number}"


def test_the_same_number_is_the_same_file(labs: list[Any]) -> None:
    import fuzz

    for lab in labs:
        first = [fuzz.content_of(lab.target, 3, number) for number in range(8)]
        assert first == [fuzz.content_of(lab.target, 3, number) for number in range(8)]
        assert first[0] == lab.target.valid[0]
        assert len(set(first)) > 2, lab.target.name


@pytest.mark.parametrize("name", ["settings", "convert"])
def test_a_folder_that_is_taken_up_is_its_own_place(name: str, labs: list[Any]) -> None:
    (lab,) = (lab for lab in labs if lab.target.name == name)
    tally = lab.run(1)  # of the valid file, which is read in a folder that the command would make
    assert (tally.accepted, dict(tally.failures)) == (1, {})


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, derandomize=True)
@given(content=JSON)
def test_any_json_is_read_or_refused(name: str, content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        said = path.name
        try:
            FILES[name](path)
        except ValueError as error:
            said = str(error)
        assert path.name in said
