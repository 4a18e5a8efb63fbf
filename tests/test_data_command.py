"""`ruac data` as a person uses it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ruac.data.convert as convert
import ruac.data.sheet as sheet
from ruac.cli import main
from ruac.data.domains import DOMAINS
from ruac.data.folder import FolderSet, read_mask

HEIGHT, WIDTH = 24, 32


def photograph(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


def published(root: Path, count: int = 6) -> Path:
    """A small TrashCan, every picture with one square; those of every third have none."""
    folder = root / "instance_version"
    (folder / "val").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        name = f"vid_{i:06}_frame0000001.jpg"
        Image.fromarray(photograph(i)).save(folder / "val" / name)
        images.append({"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH})
        x, y = 2 + i, 3
        if i % 3:
            square = [x, y, x + 10, y, x + 10, y + 8, x, y + 8]
            annotations.append({"id": i, "image_id": i, "segmentation": [square, [1, 1, 2, 2]], "iscrowd": 0})
    (folder / "instances_val_trashcan.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return root


def our_set(root: Path, count: int = 3) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        Image.fromarray(photograph(i)).save(root / "images" / f"{i}.png")
        ids = np.zeros((HEIGHT, WIDTH), np.uint8)
        ids[4:12, 5:15], ids[14:20, 6:20], ids[:, 30:] = 1, 7, 255
        Image.fromarray(ids).save(root / "masks" / f"{i}.png")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(*words: Any) -> int:
    return main(["data", *map(str, words)])


# list and info


def test_list_names_every_data_set_without_loading_torch() -> None:
    code = "import sys; from ruac.data.command import list_domains; list_domains(); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    header, *rows, torch = shown.splitlines()
    assert header.split() == ["name", "group", "licence", "split"]
    assert [row.split()[0] for row in rows] == list(DOMAINS)
    assert torch == "False"


@pytest.mark.parametrize("name", DOMAINS)
def test_info_tells_layout_licence_and_citation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", name.lower()) == 0
    shown = capsys.readouterr().out
    domain = DOMAINS[name]
    for line in domain.layout:
        assert f" {line}\n" in shown
    flat = re.sub(r"\s+", " ", shown)
    for text in (
        domain.title,
        domain.home,
        domain.licence,
        domain.citation,
        domain.verified,
        f"ruac data convert {name} ROOT OUT",
    ):
        assert text in flat


def test_an_unknown_name_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("info", "citiscapes"), ("convert", "citiscapes", "a", "b")):
        assert run(*words) == 2
        assert capsys.readouterr().err == (
            "ruac: no data set 'citiscapes'; did you mean Cityscapes? All of them: ruac data list\n"
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paint"], "invalid choice: 'paint' (choose from 'list', 'info', 'check', 'convert'); see ruac data --help"),
        (["--paint"], "see ruac data --help"),
        (["info"], "arguments are required: domain; see ruac data info --help"),
        (["info", "VOC", "MOSE"], "unrecognized arguments: MOSE; see ruac data info --help"),
        (["convert", "VOC", "a"], "arguments are required: out; see ruac data convert --help"),
        (["convert", "VOC", ".", "b", "--max-images", "0"], "--max-images must be at least 1"),
        (["convert", "VOC", ".", "b", "--seed", "-1"], "--seed"),
        (["check", "nowhere"], "nowhere: no data set here"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("ruac: ")
    assert shown.count("\n") == 1
    assert message in shown


def test_help_at_both_levels(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["data", "--help"], ["data", "convert", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "  data check " in shown
    assert "usage: ruac data convert" in shown
    assert "--max-images" in shown
    assert main(["data"]) == 2
    assert "commands:" in capsys.readouterr().err


# convert


def test_conversion_opens_as_a_set_with_the_masks_of_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = published(tmp_path / "in"), tmp_path / "out"
    assert run("convert", "TrashCan", root, out) == 0
    assert "4 images, 4 objects, 2 without objects left out. Licence: research and teaching" in capsys.readouterr().out
    converted = FolderSet.open(out)
    assert [sample.id for sample in converted.samples] == [f"vid_{i:06}_frame0000001" for i in (1, 2, 4, 5)]
    for i, sample in zip((1, 2, 4, 5), converted.samples, strict=True):
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[3:11, 2 + i : 12 + i] = 1
        np.testing.assert_array_equal(read_mask(sample.mask), expected)
        assert sample.image.read_bytes() == (root / "instance_version" / "val" / sample.image.name).read_bytes()
    meta = converted.meta
    assert (meta["name"], meta["group"], meta["n_images"], meta["n_annotations_skipped"]) == ("TrashCan", "objects", 4, 4)
    assert run("check", out) == 0


def test_a_stopped_conversion_goes_on_and_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = published(tmp_path / "in", 9)
    words = ("convert", "TrashCan", root)
    assert run(*words, tmp_path / "whole", "--max-images", 5, "--seed", 3) == 0
    write, calls = convert.write_whole, []

    def killed(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) in (3, 8):
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_whole", killed)
        assert run(*words, tmp_path / "parts", "--max-images", 5, "--seed", 3) == 130
        (tmp_path / "parts" / "convert.jsonl").open("a").write('{"name": "half a li')
        (tmp_path / "parts" / "masks" / ".half.png.123.tmp").write_text("left by a run that had no time to clean up")
        assert run(*words, tmp_path / "parts", "--max-images", 5, "--seed", 3) == 130
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts" / "masks").iterdir()}
    assert 0 < len(finished) < 5
    assert run(*words, tmp_path / "parts", "--max-images", 5, "--seed", 3) == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_the_seed_draws_the_images(tmp_path: Path) -> None:
    root = published(tmp_path / "in", 30)

    def drawn(seed: int, out: str) -> list[str]:
        assert run("convert", "TrashCan", root, tmp_path / out, "--max-images", 4, "--seed", seed) == 0
        return [sample.id for sample in FolderSet.open(tmp_path / out).samples]

    assert len(drawn(1, "a")) == 4
    assert drawn(1, "b") == drawn(1, "c")
    assert drawn(1, "a") != drawn(2, "d")


def test_other_settings_and_other_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = published(tmp_path / "in"), tmp_path / "out"
    assert run("convert", "TrashCan", root, out, "--max-images", 2) == 0
    before = contents(out)
    for words, message in (
        (("--max-images", 2, "--seed", 1), "made with seed 0, not 1; choose another folder"),
        (("--max-images", 3), "made with max_images 2, not 3; choose another folder"),
    ):
        assert run("convert", "TrashCan", root, out, *words) == 2
        assert message in capsys.readouterr().err
    assert contents(out) == before
    assert run("convert", "TrashCan", root, root) == 2
    assert "not empty, and not made by this command" in capsys.readouterr().err


def test_bad_images_are_listed_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = published(tmp_path / "in"), tmp_path / "out"
    val = root / "instance_version" / "val"
    (val / "vid_000001_frame0000001.jpg").unlink()
    (val / "vid_000002_frame0000001.jpg").write_bytes(b"\xff\xd8 no picture")
    Image.fromarray(photograph(4)[:-1]).save(val / "vid_000004_frame0000001.jpg")
    assert run("convert", "TrashCan", root, out) == 1
    shown = capsys.readouterr()
    assert "1 images, 1 objects" in shown.out
    heading, *lines = shown.err.splitlines()
    assert heading == "ruac: 3 images could not be used:"
    for line, words in zip(lines, ("no such file", "not an image", "says 32 x 24 pixels, the image has 32 x 23"), strict=True):
        assert line.startswith(str(val))
        assert words in line
    published(tmp_path / "again")
    (tmp_path / "again").rename(tmp_path / "repaired")
    assert run("convert", "TrashCan", tmp_path / "repaired", out) == 0
    assert run("convert", "TrashCan", tmp_path / "repaired", tmp_path / "other") == 0
    assert {name: data for name, data in contents(out).items() if name != "convert.jsonl"} == {
        name: data for name, data in contents(tmp_path / "other").items() if name != "convert.jsonl"
    }


def test_a_name_that_leads_out_is_refused_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = published(tmp_path / "in")
    Image.fromarray(photograph(0)).save(tmp_path / "secret.jpg")
    file = root / "instance_version" / "instances_val_trashcan.json"
    file.write_text(file.read_text().replace("vid_000001_frame0000001.jpg", "../../../secret.jpg"))
    assert run("convert", "TrashCan", root, tmp_path / "out") == 2
    assert "'../../../secret.jpg' leads out of the data set; refused" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_layout_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "TrashCan", tmp_path, tmp_path / "out") == 2
    shown = capsys.readouterr().err
    assert shown.startswith(
        f"ruac: {tmp_path / 'instance_version' / 'instances_val_trashcan.json'}: missing; TrashCan is expected as"
    )
    assert shown.count("\n") == 1
    assert run("convert", "TrashCan", tmp_path / "nowhere", tmp_path / "out") == 2
    assert "no such folder" in capsys.readouterr().err


def test_pictures_that_are_not_8_bit_rgb_become_png(tmp_path: Path) -> None:
    """Grey, 16 bits, transparent, and turned by EXIF: labels are of the pixels as they are stored."""
    folder = tmp_path / "in" / "Plant" / "Ara2012"
    (tmp_path / "in" / "Plant" / "Tobacco").mkdir(parents=True)
    folder.mkdir()
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[2:9, 3:12] = 4
    grey = photograph(0)[..., 0]
    deep = photograph(1)[..., 0].astype(np.uint16) * 257
    turned, exif = Image.fromarray(photograph(2)), Image.Exif()
    exif[0x0112] = 6
    for name, image in (
        ("grey", Image.fromarray(grey)),
        ("deep", Image.fromarray(deep)),
        ("plain", Image.fromarray(photograph(3))),
    ):
        image.save(folder / f"{name}_rgb.png")
    turned.save(folder / "turned_rgb.png", exif=exif)
    turned.save(tmp_path / "in" / "Plant" / "Tobacco" / "x_rgb.png")
    for path in (tmp_path / "in").rglob("*_rgb.png"):
        Image.fromarray(label).save(str(path).replace("_rgb", "_label"))
    assert run("convert", "PPDLS", tmp_path / "in", tmp_path / "out") == 0
    images = tmp_path / "out" / "images"
    assert (images / "plain.png").read_bytes() == (folder / "plain_rgb.png").read_bytes()
    for name, pixels in (
        ("grey", np.repeat(grey[..., None], 3, 2)),
        ("deep", np.repeat(photograph(1)[..., :1], 3, 2)),
        ("turned", photograph(2)),
    ):
        with Image.open(images / f"{name}.png") as written:
            assert written.getexif().get(0x0112, 1) == 1
            np.testing.assert_array_equal(np.asarray(written), pixels)
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / f"{name}.png"), label)


def test_names_that_differ_only_in_case_are_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "Plant" / "Ara2012"
    (tmp_path / "in" / "Plant" / "Tobacco").mkdir(parents=True)
    folder.mkdir()
    for number, name in enumerate(("Ara2012/Leaf", "Ara2012/leaf", "Tobacco/leaf")):
        Image.fromarray(photograph(number)).save(tmp_path / "in" / "Plant" / f"{name}_rgb.png")
        Image.fromarray(np.full((HEIGHT, WIDTH), number + 1, np.uint8)).save(tmp_path / "in" / "Plant" / f"{name}_label.png")
    assert run("convert", "PPDLS", tmp_path / "in", tmp_path / "out") == 0
    masks = {path.stem: int(read_mask(path).max()) for path in (tmp_path / "out" / "masks").iterdir()}
    assert masks == {"Leaf": 1, "leaf_2": 2, "leaf_3": 3}


def test_what_was_written_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = published(tmp_path / "in"), tmp_path / "out"
    assert run("convert", "TrashCan", root, out) == 0
    mask = out / "masks" / "vid_000001_frame0000001.png"
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(mask)
    assert run("convert", "TrashCan", root, out) == 1
    assert f"{mask}: not what was written" in capsys.readouterr().err


def test_a_data_set_without_any_object_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "TrashCan", published(tmp_path / "in", 1), tmp_path / "out") == 1
    assert "no image with an object" in capsys.readouterr().err


def test_a_full_disk_stops_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = published(tmp_path / "in")
    calls = []

    def full(path: Path, content: bytes) -> None:
        calls.append(path)
        if path.suffix == ".jpg":
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(content)

    monkeypatch.setattr(convert, "write_whole", full)
    assert run("convert", "TrashCan", root, tmp_path / "out") == 1
    assert len(calls) == 2


# check


def test_a_set_in_order_has_no_problem_and_a_contact_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, "SIDE", 60)
    root = our_set(tmp_path / "squares", 30)
    assert run("check", root) == 0
    assert f"squares: 30 images, 60 objects, no problem; look at {root / 'check.png'}" in capsys.readouterr().out
    with Image.open(root / "check.png") as written:
        assert written.size == (6 * (60 + 10) + 10, 4 * (60 + 22 + 10) + 10)
        assert np.asarray(written).std() > 20


@pytest.mark.parametrize("meta", [{"name": ["x"]}, {"name": "../../evil"}, []])
def test_what_eval_would_refuse_is_a_problem(meta: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = our_set(tmp_path / "bad", 1)
    (root / "meta.json").write_text(json.dumps(meta))
    assert run("check", root) == 1
    assert f"{root / 'meta.json'}: " in capsys.readouterr().err


def test_every_problem_is_named_with_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = our_set(tmp_path / "bad", 10)
    images, masks = root / "images", root / "masks"
    (masks / "0.png").unlink()
    Image.fromarray(np.zeros((HEIGHT, WIDTH + 1), np.uint8)).save(masks / "1.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(masks / "2.png")
    Image.fromarray(np.where(read_mask(masks / "3.png") == 1, 255, 0).astype(np.uint8)).save(masks / "3.png")
    Image.fromarray(np.repeat(read_mask(masks / "4.png")[..., None], 3, 2)).save(masks / "4.png")
    (images / "5.png").write_bytes((images / "5.png").read_bytes()[:500])
    (images / "7.png").write_bytes((images / "6.png").read_bytes())
    Image.fromarray(photograph(99)).save(images / "8.jpg")
    (masks / "lonely.png").write_bytes((masks / "9.png").read_bytes())
    (root / "meta.json").write_text("{")
    assert run("check", root) == 1
    heading, *lines = capsys.readouterr().err.splitlines()
    expected = [
        f"{images / '8'}: 2 images of this name",
        f"{masks / 'lonely.png'}: a mask without an image",
        f"{root / 'meta.json'}: not JSON",
        f"{images / '0.png'}: no mask {masks / '0.png'}",
        f"{masks / '1.png'}: 33 x 24 pixels, its image has 32 x 24",
        f"{masks / '2.png'}: no object in it",
        f"{masks / '3.png'}: no object in it; 255 means ignore, an object has a number from 1 to 254",
        f"{masks / '4.png'}: a mask must be an 8-bit image of one channel",
        f"{images / '5.png'}: damaged",
        f"{images / '7.png'}: the same picture as {images / '6.png'}",
    ]
    assert heading == f"ruac: {len(expected)} problems:"
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_a_folder_of_sets_is_checked_as_one_for_doubles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    our_set(tmp_path / "a", 2)
    our_set(tmp_path / "b", 1)
    assert run("check", tmp_path) == 1
    shown = capsys.readouterr()
    assert "a: 2 images, 4 objects, no problem" in shown.out
    assert "b: 1 images, 2 objects, 1 problems" in shown.out
    assert f"{tmp_path / 'b' / 'images' / '0.png'}: the same picture as {tmp_path / 'a' / 'images' / '0.png'}" in shown.err


def test_a_set_without_pictures_or_masks_is_a_problem_and_no_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty" / "images").mkdir(parents=True)
    assert run("check", tmp_path / "empty") == 1
    assert "no image (.jpg, .jpeg, .png, .webp)" in capsys.readouterr().err
    assert not (tmp_path / "empty" / "check.png").exists()
