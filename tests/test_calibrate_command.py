"""`ruac calibrate`, the file that it writes, and `ruac predict` with it."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from squares import write_set

from ruac.calibrate.bounds import Guarantee, bounds, scores, tempered
from ruac.calibrate.command import calibrate
from ruac.calibrate.file import FILE, Calibration
from ruac.calibrate.measure import Measured
from ruac.calibrate.policy import BOX_JITTER, Policy
from ruac.calibrate.risk import Losses, count
from ruac.calibrate.shift import Traits
from ruac.cli import main
from ruac.data.folder import FolderSet
from ruac.errors import WorkError
from ruac.evaluate.protocol import read
from ruac.model import RuacModel, weights_sha256
from ruac.predict import predict
from ruac.predictor import Predictor, Prompt

IMAGES = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("squares") / "set", IMAGES)


@pytest.fixture(scope="module")
def calibrated(data: Path, tiny_model: RuacModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with a calibration in it. Not to be changed."""
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    tiny_model.save_pretrained(folder)
    calibrate([data], model=str(folder), alpha=[0.5, 0.1])
    return folder


@pytest.fixture(scope="module")
def calibration(calibrated: Path) -> Calibration:
    return Calibration.read(calibrated / FILE)


@pytest.fixture
def own_folder(calibrated: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(calibrated, tmp_path / "model"))


def own_lines(shown: str) -> list[str]:
    """Of what is on stderr; loading bars are hidden by the command line only."""
    return [line for line in shown.splitlines() if line.startswith("ruac: ")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_calibrating_and_predicting_through_the_real_command(data: Path, own_folder: Path, tmp_path: Path) -> None:
    (own_folder / FILE).unlink()

    def run(*words: object) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "ruac", *map(str, words)], capture_output=True, text=True)

    done = run("calibrate", "--data", data, "--model", own_folder, "--alpha", "0.3", "0.5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{IMAGES} images, {2 * IMAGES} objects; temperature ")
    assert [line.split(":")[0] for line in lines[1:]] == ["alpha 0.3", "alpha 0.5", "Calibration"]

    out = tmp_path / "out"
    done = run("predict", data / "images" / "0.png", "--point", "15,12", "--model", own_folder, "--out", out, "--alpha", "0.5")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert names(out) == [
        f"0.{kind}" for kind in ("inner.png", "json", "mask.png", "outer.png", "overlay.png", "uncertainty.png")
    ]
    guarantee = read_json(out / "0.json")["guarantee"]
    assert (guarantee["alpha"], guarantee["holds"], guarantee["images"]) == (0.5, True, IMAGES)
    inner, mask, outer = (cv2.imread(str(out / f"0.{kind}.png"), cv2.IMREAD_UNCHANGED) > 0 for kind in ("inner", "mask", "outer"))
    assert not (inner & ~mask).any()
    assert not (mask & ~outer).any()
    assert (guarantee["inner"]["area"], guarantee["outer"]["area"]) == (inner.sum(), outer.sum())


def test_file_says_what_was_found_on_what_and_for_what(
    calibrated: Path, tiny_model: RuacModel, calibration: Calibration, tmp_path: Path
) -> None:
    content = read_json(calibrated / FILE)
    assert content["model_sha256"] == weights_sha256(tiny_model)
    assert (content["n"], content["objects"], content["data"]["sets"]) == (IMAGES, 2 * IMAGES, {"set": IMAGES})
    assert content["prompts"]["words"] == "one click at the centre of the object"
    assert [level["alpha"] for level in content["levels"]] == [0.5, 0.1]
    # alpha = 1 / (n + 1) allows no loss
    assert content["levels"][1]["outer"]["calibration_risk"] == 0
    assert content["levels"][1]["inner"]["calibration_risk"] == 0
    assert len(content["reference"]) == IMAGES
    calibration.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (calibrated / FILE).read_bytes()


def test_fingerprint_is_of_the_contents(data: Path, tiny_model_folder: Path, tmp_path: Path, calibration: Calibration) -> None:
    changed = write_set(tmp_path / "set", IMAGES)
    calibrate([changed], model=str(tiny_model_folder), alpha=[0.5], out=tmp_path / "a.json")
    assert Calibration.read(tmp_path / "a.json").fingerprint == calibration.fingerprint
    mask = changed / "masks" / "3.png"
    ids = np.array(Image.open(mask))
    ids[0, 0] = 255
    Image.fromarray(ids).save(mask)
    calibrate([changed], model=str(tiny_model_folder), alpha=[0.5], out=tmp_path / "b.json")
    assert Calibration.read(tmp_path / "b.json").fingerprint != calibration.fingerprint


def test_losses_are_those_of_the_masks_that_predict_returns(data: Path, tiny_model: RuacModel, calibration: Calibration) -> None:
    predictor, guarantee = Predictor(tiny_model), Guarantee(calibration, calibration.level(0.5))
    lost = []
    for sample in FolderSet.open(data).samples:
        labelled = read(sample)
        predictor.set_image(labelled.image)
        each = []
        for i in calibration.policy.objects(labelled.ids, labelled.id):
            truth, valid = labelled.ids == i, labelled.ids != 255
            around = bounds(predictor.predict_many([calibration.policy.say(truth, labelled.id, i)])[0], guarantee, True)
            each.append(
                ((truth & ~around.outer).sum() / truth.sum(), min(1, (around.inner & ~truth & valid).sum() / truth.sum()))
            )
        lost.append(np.mean(each, 0))
    level = guarantee.level
    assert np.mean(lost, 0) == pytest.approx((level.outer.risk, level.inner.risk), abs=1e-9)
    assert (np.sum(lost, 0) + 1 <= 0.5 * (IMAGES + 1) + 1e-9).all()


def test_temperature_divides_the_logit_and_leaves_the_mask(tiny_model: RuacModel, data: Path) -> None:
    predictor = Predictor(tiny_model)
    predictor.set_image(data / "images" / "0.png")
    plain = predictor.predict([[15, 12]])
    warm = tempered(plain, 2.5)
    assert float(plain.distribution.variance.max()) > 0
    np.testing.assert_array_equal(warm.masks, plain.masks)
    np.testing.assert_allclose(warm.low_res_logits, plain.low_res_logits, rtol=1e-5)
    torch.testing.assert_close(scores(warm), scores(plain) / 2.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(warm.probability[0], torch.sigmoid(scores(plain) / 2.5).numpy(), atol=1e-6)


def test_temperature_is_that_of_the_labels_and_every_image_counts_alike() -> None:
    """Labels drawn at a temperature of 2.5 are found to be at that; a second, large image of another one moves it half-way."""
    rng = np.random.default_rng(0)

    def image(temperature: float, side: int) -> Measured:
        score = rng.normal(0, 6, (side, side))
        truth = rng.random((side, side)) < 1 / (1 + np.exp(-score / temperature))
        counts = count(torch.from_numpy(score), torch.from_numpy(truth), torch.ones(side, side, dtype=torch.bool))
        return Measured(Losses.of_image([counts]), 1, counts / counts.sum(), ())

    small, large = image(2.5, 200), image(1.0, 600)
    assert small.temperature == pytest.approx(2.5, rel=0.03)
    assert large.temperature == pytest.approx(1.0, rel=0.03)
    both = small + large
    assert both.images == 2
    assert 1.5 < both.temperature < 2.1


def test_boxes_are_moved_by_up_to_a_tenth_and_always_alike() -> None:
    truth = np.zeros((200, 300), bool)
    truth[50:150, 100:200] = True
    policy = Policy("box", seed=3)
    boxes = np.array([policy.say(truth, str(n), 1).box for n in range(200)], dtype=float)
    shift = np.abs(boxes - [100, 50, 199, 149]).max(0)
    assert (shift <= 100 * BOX_JITTER).all()
    assert (shift > 90 * BOX_JITTER).all()
    assert policy.say(truth, "7", 1).box == policy.say(truth, "7", 1).box
    assert policy.say(truth, "7", 1).box != replace(policy, seed=4).say(truth, "7", 1).box


@pytest.mark.parametrize(
    ("kind", "points", "box", "fits"),
    [
        ("point", [(1, 2, 1)], None, True),
        ("point", [(1, 2, 0)], None, False),
        ("point", [(1, 2, 1), (3, 4, 1)], None, False),
        ("point", [(1, 2, 1)], (0, 0, 5, 5), False),
        ("box", [], (0, 0, 5, 5), True),
        ("box", [(1, 2, 1)], (0, 0, 5, 5), False),
        ("box", [(1, 2, 1)], None, False),
    ],
)
def test_prompts_of_another_kind_are_known(kind: str, points: list, box: tuple | None, fits: bool) -> None:
    assert Policy(kind).fits(points, box) is fits  # pyright: ignore[reportArgumentType]


def test_other_prompts_are_warned_of_and_have_no_guarantee(
    data: Path, calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict([data / "images" / "0.png"], box=["4,4,26,21"], out=tmp_path / "out", model=str(calibrated))
    assert own_lines(capsys.readouterr().err) == [
        "ruac: warning: the guarantee is for one click at the centre of the object; for other prompts there is none"
    ]
    guarantee = read_json(tmp_path / "out" / "0.json")["guarantee"]
    assert guarantee["holds"] is False
    assert guarantee["words"].startswith("None: ")


def test_other_pictures_are_warned_of_once(own_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures of one square each, always in the same place, so that one click is what the calibration says of all of them."""
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    ids = np.zeros((40, 56), np.uint8)
    ids[10:31, 15:36] = 1
    for i in range(16):
        picture = rng.integers(0, 120, (40, 56, 3)) + 130 * ids[..., None]
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(ids).save(root / "masks" / f"{i}.png")
    same = sorted((root / "images").iterdir())
    calibrate([root], model=str(own_folder), alpha=[0.2], max_images=8)
    predict(same[8:], point=["25,20"], out=tmp_path / "same", model=str(own_folder))
    assert own_lines(capsys.readouterr().err) == []

    others = [tmp_path / f"{i}.png" for i in range(8)]
    for i, photo in enumerate(others):
        Image.new("RGB", (56, 40), (20 + i, 90, 200)).save(photo)
    predict(others, point=["25,20"], out=tmp_path / "other", model=str(own_folder))
    (line,) = own_lines(capsys.readouterr().err)
    assert line.startswith("ruac: warning: these pictures differ from those of the calibration in how they look")
    assert "level 0.01): " in line
    assert line.endswith("the guarantee may not hold for them; calibrate on labelled pictures of this kind")


def test_the_doubt_is_compared_where_the_prompts_are_of_the_same_kind_alone(
    data: Path, calibrated: Path, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[list[Traits]] = []
    monkeypatch.setattr("ruac.calibrate.shift.compare", lambda _, new: compared.append(list(new)))
    photos = [data / "images" / f"{i}.png" for i in range(2)]
    for words in ({"point": ["15,12"]}, {"box": ["4,4,26,21"]}, {"point": ["15,12", "40,30"]}):
        predict(photos, **words, out=tmp_path / "out", model=str(calibrated))
    (clicked, boxed, twice) = compared
    assert all(len(traits.doubt) == len(calibration.traits[0].doubt) for traits in clicked)
    assert [traits.doubt for traits in (*boxed, *twice)] == [()] * 4
    assert [traits.look for traits in boxed] == [traits.look for traits in clicked]


def test_predict_without_a_calibration_is_what_it_was(data: Path, own_folder: Path, tmp_path: Path) -> None:
    photo = data / "images" / "0.png"
    predict([photo], point=["15,12"], out=tmp_path / "with", model=str(own_folder))
    (own_folder / FILE).rename(tmp_path / "elsewhere.json")
    predict([photo], point=["15,12"], out=tmp_path / "without", model=str(own_folder))
    predict([photo], point=["15,12"], out=tmp_path / "named", model=str(own_folder), calibration=tmp_path / "elsewhere.json")
    assert names(tmp_path / "without") == ["0.json", "0.mask.png", "0.overlay.png", "0.uncertainty.png"]
    assert "guarantee" not in read_json(tmp_path / "without" / "0.json")
    mask = [(tmp_path / folder / "0.mask.png").read_bytes() for folder in ("with", "without", "named")]
    assert mask[0] == mask[1] == mask[2]
    assert names(tmp_path / "named") == names(tmp_path / "with")
    assert (tmp_path / "named" / "0.json").read_bytes() == (tmp_path / "with" / "0.json").read_bytes()
    # the temperature is far from one
    uncertain = [(tmp_path / folder / "0.uncertainty.png").read_bytes() for folder in ("with", "without")]
    assert uncertain[0] != uncertain[1]


def test_calibration_of_another_model_is_refused(
    data: Path, own_folder: Path, calibration: Calibration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = own_folder / FILE
    replace(calibration, model_sha256="0" * 64).write(file)
    words = ["predict", str(data / "images" / "0.png"), "--point", "15,12", "--out", str(tmp_path / "out"), "--model"]
    assert main([*words, str(own_folder)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert f"{file}: made for other weights (000000000000)" in shown
    assert not (tmp_path / "out").exists()


def _without(content: dict, *path: str) -> dict:
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return content


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: text.replace("ruac-calibration-1", "ruac-calibration-9"), "its format is 'ruac-calibration-9'"),
        (lambda text: json.dumps(_without(json.loads(text), "temperature")), "no entry 'temperature'"),
        (lambda text: json.dumps(_without(json.loads(text), "data", "fingerprint")), "no entry 'fingerprint'"),
        (lambda text: json.dumps(json.loads(text) | {"temperature": math.nan}), "no positive number"),
        (lambda text: json.dumps(json.loads(text) | {"levels": []}), "no level"),
        (lambda text: json.dumps(json.loads(text) | {"reference": [{"look": [1], "doubt": [2]}]}), "incomplete"),
        (lambda text: text.replace('"kind": "point"', '"kind": "poke"'), "unknown prompts 'poke'"),
    ],
)
def test_damaged_file_is_refused_with_its_name(
    calibrated: Path, tmp_path: Path, damage: Callable[[str], str], reason: str
) -> None:
    file = tmp_path / FILE
    file.write_text(damage((calibrated / FILE).read_text()))
    with pytest.raises(ValueError, match="not a calibration") as caught:
        Calibration.read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0.05"], "--alpha 0.05: takes 19 labelled images with an object, there are 9, the least for 9 is 0.1"),
        (["--alpha", "2"], "--alpha 2: a share between 0 and 1 is needed"),
        (["--max-objects", "0"], "--max-objects must be at least 1, not 0"),
        (["--max-images", "0"], "--max-images must be at least 1, not 0"),
        (["--seed", "-1"], "--seed must not be negative"),
        (["--model", "nano"], "--out is needed: the model 'nano' has no folder"),
        (["--head", "x.safetensors"], "--out is needed with --head"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    data: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["calibrate", "--data", str(data), "--model", str(tiny_model_folder), *options]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert message in shown
    assert not (tiny_model_folder / FILE).exists()


def test_unknown_level_and_a_level_of_nothing_are_refused(data: Path, calibrated: Path, tiny_model_folder: Path) -> None:
    photo = data / "images" / "0.png"
    with pytest.raises(ValueError, match=r"^--alpha 0\.2: the calibration has 0\.5, 0\.1; run ruac calibrate with --alpha 0\.2$"):
        predict([photo], point=["15,12"], model=str(calibrated), alpha=0.2)
    with pytest.raises(ValueError, match=r"--alpha 0\.5: there is no calibration"):
        predict([photo], point=["15,12"], model=str(tiny_model_folder), alpha=0.5)
    with pytest.raises(FileNotFoundError, match=r"no calibration at .*nowhere\.json"):
        predict([photo], point=["15,12"], model=str(tiny_model_folder), calibration=Path("nowhere.json"))


def test_unreadable_and_empty_pictures_are_left_out_and_told(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set", 6)
    (root / "images" / "2.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((40, 56), np.uint8)).save(root / "masks" / "4.png")
    with pytest.raises(WorkError, match=r"^1 of 6 images could not be read:\n.*2\.png: not an image"):
        calibrate([root], model=str(tiny_model_folder), alpha=[0.3], out=tmp_path / "c.json")
    assert capsys.readouterr().out.startswith("4 images, 8 objects, 1 without an object left out; temperature ")
    assert Calibration.read(tmp_path / "c.json").images == 4
    # with them there would have been enough
    with pytest.raises(ValueError, match=r"--alpha 0\.15: takes 6 labelled images with an object, there are 4"):
        calibrate([root], model=str(tiny_model_folder), alpha=[0.15], out=tmp_path / "d.json")


def test_prompt_of_the_policy_is_at_the_centre() -> None:
    truth = np.zeros((20, 30), bool)
    truth[4:9, 10:21] = True
    prompt = Policy().say(truth, "a", 1)
    assert isinstance(prompt, Prompt)
    ((x, y),) = np.asarray(prompt.point_coords).tolist()
    assert y == 6
    assert 12 <= x <= 18
