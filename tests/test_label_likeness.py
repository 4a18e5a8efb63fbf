"""`ruac label` with a calibration: two more masks that come with a guarantee, and a warning when pictures are of another kind."""

import html
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ruac.calibrate.command import calibrate
from ruac.calibrate.file import FILE, Calibration
from ruac.calibrate.policy import Policy
from ruac.cli import WRONG_USE, main
from ruac.data.folder import FolderSet
from ruac.data.labels import decode
from ruac.evaluate.protocol import read
from ruac.label.images import ImageFile
from ruac.label.likeness import drawn
from ruac.label.part import Folder
from ruac.label.prompts import Task, Wanted
from ruac.model import RuacModel
from ruac.predict import predict

HEIGHT, WIDTH, SIDE, IMAGES = 40, 56, 21, 8


def write_set(root: Path, seed: int) -> Path:
    """Pictures of one bright square each on noise."""
    rng = np.random.default_rng(seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(IMAGES):
        top, left = rng.integers(0, HEIGHT - SIDE), rng.integers(0, WIDTH - SIDE)
        ids = np.zeros((HEIGHT, WIDTH), np.uint8)
        ids[top : top + SIDE, left : left + SIDE] = 1
        picture = rng.integers(0, 120, (HEIGHT, WIDTH, 3)) + 130 * ids[..., None]
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(ids).save(root / "masks" / f"{i}.png")
    return root


def shifted(data: Path, root: Path) -> Path:
    """The same with pictures inverted and noisier."""
    rng = np.random.default_rng(1)
    for sample in FolderSet.open(write_set(root, 2)).samples:
        inverted = 255 - np.asarray(Image.open(data / "images" / sample.image.name)).astype(float)
        noisy = inverted + rng.normal(0, 60, inverted.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(sample.image)
    return root


def asked(data: Path, policy: Policy) -> Path:
    """A file of prompts for the set, as the calibration's policy says them."""
    told = {}
    for sample in FolderSet.open(data).samples:
        labelled = read(sample)
        prompt = policy.say(labelled.ids == 1, labelled.id, 1)
        if prompt.box is None:
            told[sample.image.name] = [{"points": [[*map(float, point), 1] for point in np.asarray(prompt.point_coords)]}]
        else:
            told[sample.image.name] = [{"box": list(map(float, np.asarray(prompt.box)))}]
    path = data / "prompts.json"
    path.write_text(json.dumps(told))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("calibration") / "set", 0)


@pytest.fixture(scope="module")
def model(data: Path, tiny_model: RuacModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with a calibration in it. Not to be changed."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    tiny_model.save_pretrained(folder)
    calibrate([data], model=str(folder), alpha=[0.5])
    return folder


def words(data: Path, model: Path, out: Path) -> list[str]:
    return ["label", str(data / "images"), "--prompts", str(data / "prompts.json"), "--model", str(model), "--out", str(out)]


def noted(out: Path) -> dict:
    return json.loads((out / "labels.json").read_text())["info"]["shift"]


def test_pictures_of_the_same_kind_do_not_warn_and_others_do_through_the_real_command(
    data: Path, model: Path, tmp_path: Path
) -> None:
    said = {}
    for name, part in (("same", write_set(tmp_path / "a", 1)), ("other", shifted(data, tmp_path / "b"))):
        asked(part, Policy())
        command = [sys.executable, "-m", "ruac", *words(part, model, tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[name] = done.stderr.splitlines()
    assert said["same"] == []
    (line,) = said["other"]
    assert line.startswith("ruac: warning: these pictures differ from those of the calibration in how they look")
    assert "(energy distance, p = 0.0" in line
    assert "level 0.01)" in line
    assert line.endswith("calibrate anew on labelled pictures of this kind (ruac calibrate, ruac quality)")
    same, other = noted(tmp_path / "same"), noted(tmp_path / "other")
    assert same["calibration"] == Calibration.read(model / FILE).fingerprint
    assert (same["differ_in"], other["differ_in"][0]) == ([], "look")
    assert set(same["p"]) == {"look", "doubt"}
    assert (other["pictures"], other["level"]) == (IMAGES, 0.01)
    # the page says it, too, and first
    pages = {name: (tmp_path / name / "review.html").read_text() for name in said}
    banner = f"<strong>Warning:</strong> {line.removeprefix('ruac: warning: ')}.</p>"
    assert banner in pages["other"]
    assert pages["other"].index(banner) < pages["other"].index("<h1>")
    assert "<strong>Warning" not in pages["same"]


def test_a_run_that_goes_on_compares_all_pictures_and_does_so_again(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = shifted(data, tmp_path / "set"), tmp_path / "out"
    prompts = asked(other, Policy())
    whole, told = words(other, model, out), prompts.read_text()
    # what is not named there is left out
    prompts.write_text(json.dumps({f"{i}.png": json.loads(told)[f"{i}.png"] for i in range(4)}))
    assert main(whole) == 0
    assert capsys.readouterr().err == ""
    assert noted(out) == {
        "calibration": Calibration.read(model / FILE).fingerprint,
        "pictures": 4,
        "level": 0.01,
        "p": {},
        "differ_in": [],
    }
    prompts.write_text(told)
    for _ in range(2):
        assert main(whole) == 0
        assert capsys.readouterr().err.count("ruac: warning: these pictures differ") == 1
        assert noted(out)["pictures"] == IMAGES


def test_every_annotation_has_the_masks_that_predict_writes(model: Path, tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", 1)
    asked(data, Policy())
    path, out = data / "prompts.json", tmp_path / "out"
    told = json.loads(path.read_text())
    told["1.png"].append({"box": [5, 5, 30, 30]})
    path.write_text(json.dumps(told))
    assert main(words(data, model, out)) == 0
    content = json.loads((out / "labels.json").read_text())
    first = content["annotations"][0]
    x, y, _ = told["0.png"][0]["points"][0]
    predict([data / "images" / "0.png"], point=[f"{x},{y}"], out=tmp_path / "alone", model=str(model))
    for kind in ("inner", "outer"):
        np.testing.assert_array_equal(decode(first[kind]), np.asarray(Image.open(tmp_path / "alone" / f"0.{kind}.png")) > 0)
    for annotation in content["annotations"]:
        inner, mask, outer = (decode(annotation[kind]) for kind in ("inner", "segmentation", "outer"))
        assert not (inner & ~mask).any()
        assert not (mask & ~outer).any()
    # the box alone is not what the calibration is for
    assert [a["guaranteed"] for a in content["annotations"]] == [True, True, False, *[True] * (IMAGES - 2)]
    guarantee = content["info"]["guarantee"]
    promise = json.loads((tmp_path / "alone" / "0.json").read_text())["guarantee"]
    assert (guarantee["guaranteed"], guarantee["alpha"]) == (IMAGES, 0.5)
    assert guarantee["words"] == promise["words"]
    assert guarantee["data"] == Calibration.read(model / FILE).fingerprint
    said = f" outer mask. {promise['words']} There is no guarantee for 1 of these {IMAGES + 1} masks, prompted otherwise.</p>"
    assert said in html.unescape((out / "review.html").read_text())


def test_without_a_calibration_there_is_nothing_of_it(tiny_model_folder: Path, tmp_path: Path) -> None:
    data = write_set(tmp_path / "set", 1)
    asked(data, Policy())
    assert main(words(data, tiny_model_folder, tmp_path / "out")) == 0
    content = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert not {"guarantee", "shift"} & content["info"].keys()
    assert not any({"inner", "outer", "guaranteed"} & annotation.keys() for annotation in content["annotations"])
    assert "outer mask" not in (tmp_path / "out" / "review.html").read_text()


def test_another_calibration_or_level_in_the_same_folder_is_refused_in_a_line(
    data: Path, tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(data, Policy())
    for name, images in (("a.json", IMAGES), ("b.json", IMAGES - 1)):
        calibrate([data], model=str(tiny_model_folder), alpha=[0.5, 0.4], out=tmp_path / name, max_images=images)
    whole = words(data, tiny_model_folder, tmp_path / "out")
    first = [*whole, "--calibration", str(tmp_path / "a.json")]
    assert main(first) == 0
    done = (tmp_path / "out" / "labels.json").read_bytes()
    name = json.loads(done)["info"]["calibration"]
    assert name.endswith(" at alpha 0.5")
    capsys.readouterr()
    for others in (whole, [*first, "--alpha", "0.4"], [*whole, "--calibration", str(tmp_path / "b.json")]):
        assert main(others) == WRONG_USE
        shown = capsys.readouterr().err
        assert shown.startswith(f"ruac: --out {tmp_path / 'out'}: made with calibration {name}, not ")
        assert shown.endswith("; choose another folder\n")
    assert main([*first, "--alpha", "0.5"]) == 0
    assert (tmp_path / "out" / "labels.json").read_bytes() == done


@pytest.mark.parametrize("kind", ["point", "box"])
def test_what_is_compared_is_what_the_calibration_keeps(kind: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    data, policy = write_set(tmp_path / "set", 3), Policy(kind)  # pyright: ignore[reportArgumentType]
    asked(data, policy)
    calibrate([data], model=str(tiny_model_folder), alpha=[0.5], prompt=policy.prompt, out=tmp_path / FILE)
    assert main([*words(data, tiny_model_folder, tmp_path / "out"), "--calibration", str(tmp_path / FILE)]) == 0
    folder = Folder(tmp_path / "out")
    parts = [folder.load(sample.image.stem) for sample in FolderSet.open(data).samples]
    assert tuple(part.traits for part in parts if part) == Calibration.read(tmp_path / FILE).traits
    assert noted(tmp_path / "out")["p"] == {"look": 1.0, "doubt": 1.0}


def test_masks_that_were_asked_for_otherwise_are_compared_by_their_pictures_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "set", 1)
    asked(data, Policy("box"))
    boxed = words(data, model, tmp_path / "boxed")
    assert main(boxed) == 0
    found = [*boxed[:2], "--everything", "--grid", "2", "--least", "0.0", *boxed[4:-1], str(tmp_path / "found")]
    assert main(found) == 0
    assert capsys.readouterr().err == ""
    for out in ("boxed", "found"):
        assert set(noted(tmp_path / out)["p"]) == {"look"}
        assert noted(tmp_path / out)["pictures"] == IMAGES
        content = json.loads((tmp_path / out / "labels.json").read_text())
        assert content["info"]["guarantee"]["guaranteed"] == 0
        assert not any(annotation["guaranteed"] for annotation in content["annotations"])
        total = len(content["annotations"])
        said = f"There is no guarantee for {total} of these {total} masks, prompted otherwise."
        assert said in (tmp_path / out / "review.html").read_text()


def test_the_object_is_drawn_as_a_calibration_draws_it() -> None:
    def task(name: str, objects: int) -> Task:
        return Task(ImageFile(Path(name), name), (Wanted(1, ""),) * objects, None)

    policy = Policy(seed=5)
    found = [drawn(policy, task(f"{i}.png", 3)) for i in range(60)]
    assert found == [policy.draw(f"{i}.png", 3) for i in range(60)]
    assert min(found.count(i) for i in range(3)) > 8


def test_a_calibration_of_another_model_is_refused_before_anything_is_done(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "set", 1)
    asked(data, Policy())
    replace(Calibration.read(model / FILE), model_sha256="0" * 64).write(tmp_path / FILE)
    assert main([*words(data, model, tmp_path / "out"), "--calibration", str(tmp_path / FILE)]) == WRONG_USE
    assert "made for other weights (000000000000)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
