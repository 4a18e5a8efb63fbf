"""The same prompts for every model, through a file."""

import json
from pathlib import Path

import numpy as np
import pytest
from squares import write_set

from ruac.data.folder import find_sets
from ruac.evaluate.clickfile import ClickFile, write_clicks
from ruac.evaluate.command import evaluate
from ruac.evaluate.conversation import Point
from ruac.evaluate.protocol import LabelledImage, Protocol
from ruac.evaluate.results import Row, read_results
from ruac.features import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT

IDS = np.zeros((20, 30), np.uint8)
IDS[2:8, 2:8], IDS[10:18, 12:28] = 1, 9
IMAGE = LabelledImage("0", np.zeros((20, 30, 3), np.uint8), IDS)
HEADER = {"format": "ruac-prompts-1", "prompt": "point", "clicks": 3}


def click_file(folder: Path, objects: object, image: str = "0", **header: object) -> Path:
    path = folder / "prompts.jsonl"
    entry = {"set": "squares", "image": image, "objects": objects}
    path.write_text(json.dumps(HEADER | header) + "\n" + json.dumps(entry) + "\n")
    return path


def test_what_was_said_comes_back_word_by_word(tmp_path: Path) -> None:
    points = (Point(3, 4, 1), Point(12.5, 11, 0))
    box = (Point(12, 10, BOX_TOP_LEFT), Point(27, 17, BOX_BOTTOM_RIGHT), Point(20, 12, 1))
    for prompt, said in (("point", points), ("box", box)):
        row = Row("0", (9,), {}, {}, (said,))
        write_clicks(tmp_path / "prompts.jsonl", Protocol(clicks=(1, 2), prompt=prompt, noc=4), [("squares", [row])])  # type: ignore[arg-type]
        file = ClickFile.read(tmp_path / "prompts.jsonl")
        assert (file.prompt, file.clicks) == (prompt, 4)
        (words,) = file.words("squares", IMAGE).values()
        assert [point for word in words for point in word] == list(said)
        # a box is one prompt
        assert len(words) == 2


def test_a_second_model_is_told_the_same_and_a_second_run_of_the_first_gives_the_same(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    write_set(tmp_path / "squares")
    told, options = tmp_path / "told.jsonl", {"model": str(tiny_model_folder), "clicks": "1,3"}
    evaluate([tmp_path / "squares"], out=tmp_path / "first", save_prompts=told, **options)
    again = tmp_path / "again.jsonl"
    evaluate([tmp_path / "squares"], out=tmp_path / "second", prompts=told, save_prompts=again, **options)
    first, second = (read_results(tmp_path / out / "squares.jsonl") for out in ("first", "second"))
    assert first.rows == second.rows
    assert second.origin["prompts"] == ClickFile.read(told).sha256
    assert again.read_bytes() == told.read_bytes()
    # other clicks give other masks
    moved = [json.loads(line) for line in told.read_text().splitlines()]
    for line in moved[1:]:
        for entry in line["objects"].values():
            entry["points"] = [[50, 38, 0], *entry["points"][1:]]
    told.write_text("".join(json.dumps(line) + "\n" for line in moved))
    with pytest.raises(ValueError, match=r"results of another run \(prompts: "):
        evaluate([tmp_path / "squares"], out=tmp_path / "second", prompts=told, **options)
    evaluate([tmp_path / "squares"], out=tmp_path / "third", prompts=told, **options)
    assert read_results(tmp_path / "third" / "squares.jsonl").rows[0].masks != first.rows[0].masks


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({"2": {"points": [[3, 3, 1]]}}, "image '0' of the set 'squares': there is no object 2$"),
        ({"1": {"points": [[3, 3, 1], [30, 3, 0]]}}, r"object 1: \(30, 3\) is outside its 30 x 20 pixels"),
        ({"1": {"points": [[3, -0.5, 1]]}}, r"object 1: \(3, -0.5\) is outside"),
    ],
)
def test_prompts_that_do_not_fit_their_image_are_refused(tmp_path: Path, objects: object, message: str) -> None:
    file = ClickFile.read(click_file(tmp_path, objects))
    with pytest.raises(ValueError, match=message):
        file.words("squares", IMAGE)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({"1": {"points": [[3, 3, 2]]}}, "entry 2: .*a point's label is 1 \\(object\\) or 0 \\(background\\), not 2"),
        ({"1": {"points": []}}, "entry 2: .*without a prompt"),
        ({"1": {"points": [[3, 3]]}}, "entry 2: .*not enough values"),
        ({"1": {"points": [[3, float("nan"), 1]]}}, "entry 2: .*not finite"),
        ({"1": {"box": [1, 2, 3, 4], "points": []}}, "entry 2: .*an object with a box, although the first prompt is a point"),
        ({"one": {"points": [[3, 3, 1]]}}, "entry 2: "),
        ([], "entry 2: "),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_a_line_that_names_the_entry(
    tmp_path: Path, objects: object, message: str
) -> None:
    with pytest.raises(ValueError, match=r"prompts\.jsonl: " + message) as refused:
        ClickFile.read(click_file(tmp_path, objects))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["", "{}\n", "[1]\n", "no json\n", '{"format": "ruac-prompts-1", "prompt": "dot", "clicks": 1}\n']
)
def test_another_file_is_no_file_of_prompts(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"x\.jsonl: "):
        ClickFile.read(tmp_path / "x.jsonl")


def test_a_file_for_other_sets_images_or_settings_is_refused_before_any_work(tmp_path: Path) -> None:
    sets = find_sets([write_set(tmp_path / "squares", 1)])
    objects = {"1": {"points": [[3, 3, 1]]}}
    fitting = ClickFile.read(click_file(tmp_path, objects))
    fitting.check(sets, Protocol(clicks=(1, 3)))
    with pytest.raises(ValueError, match="holds 3 prompts an object, 5 are asked for; lower --clicks or --noc"):
        fitting.check(sets, Protocol(clicks=(1, 3, 5)))
    with pytest.raises(ValueError, match="of the kind 'point': give --prompt point"):
        fitting.check(sets, Protocol(clicks=(1,), prompt="box"))
    with pytest.raises(ValueError, match="the set 'squares' has no image '7'"):
        ClickFile.read(click_file(tmp_path, objects, image="7")).check(sets, Protocol(clicks=(1,)))
    other = find_sets([write_set(tmp_path / "other", 1)])
    with pytest.raises(ValueError, match="no prompts for the set 'other'"):
        fitting.check(other, Protocol(clicks=(1,)))
    with pytest.raises(ValueError, match="image 'x' of the set 'squares': no prompts; save them again"):
        fitting.words("squares", LabelledImage("x", IMAGE.image, IDS))
