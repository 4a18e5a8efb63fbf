"""The paper's 23 sets, under one folder, with settings that are the same for everybody."""

import json
from pathlib import Path
from typing import Any

import pytest
from squares import write_set

from ruac.data.domains import EVALUATION
from ruac.evaluate.command import evaluate
from ruac.evaluate.protocol import Protocol
from ruac.evaluate.suite import find_suite


def test_the_suite_has_the_23_domains_in_four_groups() -> None:
    suite = find_suite("sa23-ruac")
    assert len(suite.domains) == 23
    assert {domain.group for domain in suite.domains} == {"objects", "scenes", "scientific", "egocentric"}
    assert (suite.protocol.clicks, suite.protocol.seed, suite.protocol.prompt) == ((1, 3, 5), 0, "point")
    with pytest.raises(ValueError, match="no suite 'sa-23': choose from sa23-ruac"):
        find_suite("sa-23")


def test_sets_that_are_there_are_named_and_grouped_by_the_registry_and_the_others_told(tmp_path: Path) -> None:
    write_set(tmp_path / "trashcan", 1)
    (write_set(tmp_path / "PPDLS", 2) / "meta.json").write_text('{"name": "leaves", "group": "stress"}')
    write_set(tmp_path / "something_else", 1)
    found = find_suite("sa23-ruac").open(tmp_path)
    assert [(part.name, part.meta["group"], len(part.samples)) for part in found.sets] == [
        ("TrashCan", "objects", 1),
        ("PPDLS", "scientific", 2),
    ]
    assert set(found.missing) == {domain.name for domain in EVALUATION} - {"TrashCan", "PPDLS"}


def test_a_folder_without_any_of_its_sets_is_refused(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="none of the 23 sets of sa23-ruac is here; `ruac data convert "):
            find_suite("sa23-ruac").open(root)


def test_settings_of_the_suite_cannot_be_changed() -> None:
    suite = find_suite("sa23-ruac")
    suite.check(Protocol(noc=20))
    with pytest.raises(ValueError, match="the suite sa23-ruac fixes --clicks at 1,3,5: leave --clicks 1,2 out"):
        suite.check(Protocol(clicks=(1, 2)))
    with pytest.raises(ValueError, match="fixes --max-objects at 10: leave --max-objects 3 out"):
        suite.check(Protocol(max_objects=3))


def test_a_part_of_the_suite_is_not_called_the_suite(tiny_model_folder: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "data" / "TrashCan", 1)
    options: list[dict[str, Any]] = [{"max_images": 6}, {"prompts": tmp_path / "told.jsonl"}]
    for option in options:
        ((name, value),) = option.items()
        with pytest.raises(ValueError, match=f"is every image of its sets, .* leave --{name.replace('_', '-')} {value} out"):
            evaluate([tmp_path / "data"], model=str(tiny_model_folder), out=tmp_path / "out", suite="sa23-ruac", **option)
    assert not (tmp_path / "out").exists()


def test_the_command_evaluates_what_is_there_and_says_what_is_missing(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "data" / "TrashCan", 1)
    out = tmp_path / "out"
    evaluate([tmp_path / "data"], model=str(tiny_model_folder), out=out, suite="sa23-ruac")
    assert "22 of 23 sets are missing" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["origin"]["suite"] == "sa23-ruac"
    assert [group["name"] for group in summary["groups"]] == ["all", "objects"]
    assert "Suite sa23-ruac: 1 of 23 sets" in (out / "summary.md").read_text()
    with pytest.raises(ValueError, match="lies in one folder, not 2"):
        evaluate([tmp_path, tmp_path], model=str(tiny_model_folder), out=out, suite="sa23-ruac")
