"""Fitting a head to a frozen model: it learns, keeps the masks, stops in time, resumes exactly, and never sees what is reported."""

import copy
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from families import TINY, shaken, tiny_nano
from safetensors.torch import load_file
from squares import write_set

import ruac.training.fit as fit_module
from ruac.data.folder import FolderSet, Sample
from ruac.evaluate.protocol import LabelledImage, read
from ruac.heads import ExactHead, PlainHead
from ruac.model import RuacModel
from ruac.training.answers import AnswerFiles, Answers, Picture, make_answers, picture_seed
from ruac.training.embeddings import encoded_once
from ruac.training.fit import FitConfig, Progress, StateFile, batch_of, fit, watched_nll
from ruac.training.fit_speed import step_times
from ruac.training.prepare import Folders, Room, prepare
from ruac.training.split import split

QUICK = FitConfig(replace(FitConfig().stage, steps=20, images=2, objects=2, warmup=5), check_every=5)


def model_of(name: str = "nano") -> RuacModel:
    torch.manual_seed(0)
    return RuacModel.around(shaken(tiny_nano() if name == "nano" else TINY[name]())).eval().requires_grad_(False)


def pictures_of(root: Path, images: int) -> list[Picture]:
    part = FolderSet.open(write_set(root, images))
    return [Picture.of(part.name, sample) for sample in part.samples]


def answered(model: RuacModel, pictures: list[Picture], folder: Path, objects: int = 2) -> AnswerFiles:
    files = AnswerFiles(folder, model, objects, seed=0)
    for picture in pictures:
        answers = make_answers(model, read(picture.sample), objects, picture_seed(0, picture))
        assert answers is not None
        files.write(picture, answers)
    return files


def head_of(model: RuacModel) -> ExactHead:
    return cast(ExactHead, model.head)


@pytest.mark.parametrize("name", ["nano", *TINY])
def test_a_head_fits_every_family_and_leaves_its_masks(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    for mlp in model.sam.mask_decoder.output_hypernetworks_mlps:
        mlp.proj_out.weight *= 30  # now it is far too sure of its masks
    pictures = pictures_of(tmp_path / "set", 5)
    files = answered(model, pictures, tmp_path / "answers")
    start = watched_nll(head_of(model), files, pictures[3:])[0]
    state = StateFile(tmp_path / "state", "")
    progress = fit(head_of(model), files, pictures[:3], pictures[3:], QUICK, state)
    assert progress.finished
    assert progress.nll < start - 0.01
    assert watched_nll(head_of(model), files, pictures[3:]) == pytest.approx((progress.nll, progress.plain_nll))
    answers = files.read(pictures[4])
    assert answers is not None
    fitted, plain = model.head(answers.decoded), PlainHead()(answers.decoded)
    torch.testing.assert_close(fitted.prompt, plain.mean)
    assert fitted.variance.std() > 0


def test_answers_are_a_function_of_picture_and_seed(tmp_path: Path) -> None:
    model, picture = model_of(), pictures_of(tmp_path / "set", 1)[0]

    def made(seed: int) -> Answers:
        answers = make_answers(model, read(picture.sample), 2, picture_seed(seed, picture))
        assert answers is not None
        return answers

    one, same, other = made(0), made(0), made(1)
    assert torch.equal(one.decoded.pixels, same.decoded.pixels)
    assert torch.equal(one.truth, same.truth)
    assert not torch.equal(one.decoded.pixels, other.decoded.pixels)
    grid = model.grid
    assert one.decoded.pixels.shape == (2, 2, 4, grid, grid)
    assert one.decoded.weights.shape == (2, 2, 1, 4)
    assert one.truth.shape == (2, 2, 1, 2 * grid, 2 * grid)
    assert one.valid.shape == (2, 1, 1, 2 * grid, 2 * grid)
    assert not torch.equal(one.decoded.pixels[0], one.decoded.pixels[1])  # after one prompt, and after more


@pytest.mark.parametrize(("name", "rows"), [("nano", 24), ("sam2", 32)])
def test_the_truth_lies_where_the_model_sees_the_object(name: str, rows: int, tmp_path: Path) -> None:
    """Of 96 x 128 pixels in a square of 64: padded below 48 rows, or stretched; kept at half of that."""
    model, ids = model_of(name), np.zeros((96, 128), np.uint8)
    ids[24:72, 32:96], ids[:, 112:] = 3, 255
    answers = make_answers(model, LabelledImage("x", np.zeros((96, 128, 3), np.uint8), ids), 1, (0,))
    assert answers is not None
    assert answers.truth.shape[-1] == 32
    expected = torch.zeros(32, 32)
    expected[rows // 4 : 3 * rows // 4, 8:24] = 1
    assert torch.equal(answers.truth[0, 0, 0], expected)
    assert answers.valid[0, 0, 0, :rows, :28].all()
    assert answers.valid.sum() == 2 * rows * 28


def test_few_objects_are_asked_about_again_and_none_gives_nothing(tmp_path: Path) -> None:
    model, ids = model_of(), np.zeros((40, 56), np.uint8)
    image = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    ids[5:30, 5:40] = 7
    answers = make_answers(model, LabelledImage("x", image, ids), 3, (0,))
    assert answers is not None
    assert torch.equal(answers.truth[:, 0], answers.truth[:, 2])
    assert not torch.equal(answers.decoded.pixels[:, 0], answers.decoded.pixels[:, 1])  # by other clicks
    ids[:] = 255
    ids[:2, :2] = 1
    assert make_answers(model, LabelledImage("x", image, ids), 3, (0,)) is None


def test_answers_come_back_as_they_were_and_not_for_another_picture_or_model(tmp_path: Path) -> None:
    model, pictures = model_of(), pictures_of(tmp_path / "set", 2)
    model.config.head_trained = True  # one that is not trained gives nothing to what is kept
    made = make_answers(model, read(pictures[0].sample), 2, picture_seed(0, pictures[0]))
    assert made is not None
    files = answered(model, pictures[:1], tmp_path / "answers")
    found = files.read(pictures[0])
    assert found is not None
    torch.testing.assert_close(found.decoded.pixels, made.decoded.pixels, rtol=1e-3, atol=1e-6)
    assert torch.equal(found.decoded.weights, made.decoded.weights)
    assert (found.truth - made.truth).abs().max() <= 1 / 8
    assert torch.equal(found.valid, made.valid)
    assert files.read(pictures[1]) is None
    assert files.read(replace(pictures[0], content="changed")) is None
    head_of(model).roughness.data += 1  # its logits are given back with a correction
    assert AnswerFiles(tmp_path / "answers", model, 2, seed=0).read(pictures[0]) is None


def test_all_pictures_take_their_turn_in_a_new_order() -> None:
    places = [i for step in range(7) for i in batch_of(7, step, 3, seed=0)]
    turns = [places[i : i + 7] for i in range(0, 21, 7)]
    assert all(sorted(turn) == list(range(7)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 3
    assert places[:3] != batch_of(7, 0, 3, seed=1)


@pytest.mark.parametrize("at", [1, 13])
def test_an_interrupted_fit_ends_with_the_same_numbers(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    pictures = pictures_of(tmp_path / "set", 4)
    files = answered(model, pictures, tmp_path / "answers")
    start = copy.deepcopy(head_of(model))
    whole = copy.deepcopy(start)
    expected = fit(whole, files, pictures[:3], pictures[3:], QUICK, StateFile(tmp_path / "whole", "x"))
    state, real, steps = StateFile(tmp_path / "broken", "x"), fit_module.fitting_step, []

    def failing(*arguments: object) -> float:
        steps.append(arguments)
        if len(steps) == at + 1:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fit_module, "fitting_step", failing)
    with pytest.raises(KeyboardInterrupt):
        fit(copy.deepcopy(start), files, pictures[:3], pictures[3:], QUICK, state)
    assert state.progress().step == at // 5 * 5
    resumed = copy.deepcopy(start)
    assert fit(resumed, files, pictures[:3], pictures[3:], QUICK, state) == expected
    assert len(steps) == 20 + 1 + at % 5
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    done, kept = load_file(state.path), load_file(tmp_path / "whole")
    assert done.keys() == kept.keys()
    assert all(torch.equal(done[name], kept[name]) for name in kept)


def test_it_stops_when_nothing_is_gained_and_returns_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    pictures = pictures_of(tmp_path / "set", 2)
    files = answered(model, pictures, tmp_path / "answers")
    nlls, heads = iter([0.5, 0.4, 0.3, 0.35, 0.36, 0.2]), []

    def scripted(head: ExactHead, *_: object) -> tuple[float, float]:
        heads.append(head.roughness.item())
        return next(nlls), 0.45

    monkeypatch.setattr(fit_module, "watched_nll", scripted)
    config = replace(QUICK, check_every=5, patience=2)
    progress = fit(head_of(model), files, pictures[:1], pictures[1:], config, StateFile(tmp_path / "state", ""))
    assert progress == Progress(step=20, nll=0.3, plain_nll=0.45, best_step=10, finished=True)
    assert head_of(model).roughness.item() == heads[2]
    assert len(set(heads)) == 5


def test_a_head_that_only_gets_worse_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    pictures = pictures_of(tmp_path / "set", 2)
    files = answered(model, pictures, tmp_path / "answers")
    start, worse = copy.deepcopy(model.head.state_dict()), iter(range(9))
    monkeypatch.setattr(fit_module, "watched_nll", lambda *_: (float(next(worse)), 0.0))
    progress = fit(head_of(model), files, pictures[:1], pictures[1:], QUICK, StateFile(tmp_path / "state", ""))
    assert (progress.best_step, progress.nll) == (0, 0.0)
    assert all(torch.equal(value, start[name]) for name, value in model.head.state_dict().items())


def test_the_state_of_another_fit_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    model = model_of()
    pictures = pictures_of(tmp_path / "set", 2)
    files = answered(model, pictures, tmp_path / "answers")
    path = tmp_path / "state"
    fit(head_of(model), files, pictures[:1], pictures[1:], QUICK, StateFile(path, "one"))
    with pytest.raises(ValueError, match="other settings, weights or pictures; choose another --out"):
        StateFile(path, "other").progress()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{path}: .*remove this file"):
        StateFile(path, "one").progress()


def test_what_makes_a_fit_another_one() -> None:
    a, b = (Picture("set", Sample(name, Path(name), Path(name)), name) for name in "ab")
    prints = [
        QUICK.fingerprint("k", [a], [b]),
        QUICK.fingerprint("l", [a], [b]),
        QUICK.fingerprint("k", [b], [a]),
        QUICK.fingerprint("k", [replace(a, content="changed")], [b]),
        replace(QUICK, seed=1).fingerprint("k", [a], [b]),
        replace(QUICK, stage=replace(QUICK.stage, rate=1.0)).fingerprint("k", [a], [b]),
    ]
    assert len(set(prints)) == len(prints)


def samples(count: int, root: Path = Path("set")) -> FolderSet:
    root.mkdir(exist_ok=True)
    names = [f"{i:03}" for i in range(count)]
    for name in names:
        (root / name).write_text(name)
    return FolderSet(root.name, {}, tuple(Sample(name, root / name, root / name) for name in names))


@pytest.mark.parametrize("count", [3, 5, 24, 300])
def test_nothing_that_is_reported_is_fitted_on_or_watched(count: int, tmp_path: Path) -> None:
    parts = split([samples(count, tmp_path / "set")])
    held_out = {sample.id for part in parts.held_out for sample in part.samples}
    fitted, watched = ({picture.sample.id for picture in part} for part in (parts.fitted, parts.watched))
    assert Counter([*held_out, *fitted, *watched]).most_common(1)[0][1] == 1
    assert len(held_out) + len(fitted) + len(watched) == count
    assert min(len(held_out), len(fitted), len(watched)) >= 1
    by_name = {sample.id for sample in samples(count, tmp_path / "set").samples if sample.held_out}
    assert (len(by_name) >= 5) == (count == 300)
    assert held_out == (by_name if count == 300 else {f"{i:03}" for i in range(0, count, 5)})


def test_two_pictures_are_too_few_and_max_images_counts_in_every_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--data: 2 labelled pictures; it takes 3"):
        split([samples(2, tmp_path / "two")])
    sets = [samples(30, tmp_path / name) for name in ("a", "b")]
    parts = split(sets, max_images=4)
    assert len(parts.fitted) + len(parts.watched) + parts.reported == 8


def test_a_disk_without_room_is_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pictures, told = model_of(), pictures_of(tmp_path / "set", 4), []
    folders = Folders.of(tmp_path / "cache", model, 2, 0)
    files = AnswerFiles(folders.answers, model, 2, 0)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50_000))
    with encoded_once(model, folders.embeddings), pytest.raises(ValueError, match=r"are free; give --max-images"):
        prepare(model, pictures, 1, files, folders.embeddings, told.append, lambda: None)
    (room,) = told
    assert isinstance(room, Room)
    assert room.free == 50_000
    assert room.needed == 3 * room.answers + 4 * room.embedding
    monkeypatch.undo()
    with encoded_once(model, folders.embeddings) as cached:
        assert len(prepare(model, pictures, 1, files, folders.embeddings, told.append, lambda: None).usable) == 4
        assert cached.encoded == 3  # the first is there
    total = sum(path.stat().st_size for path in folders.cache.rglob("*.safetensors"))
    assert total <= room.needed + room.answers + 3 * room.embedding


def test_the_cache_holds_one_model_and_one_way_of_asking(tmp_path: Path) -> None:
    model = model_of()
    old, new = (Folders.of(tmp_path, model, objects, 0) for objects in (2, 3))
    assert old.embeddings == new.embeddings
    for folder in (old.embeddings, old.answers, new.answers, tmp_path / "mine"):
        folder.mkdir()
    new.clean()
    assert {path.name for path in tmp_path.iterdir()} == {new.embeddings.name, new.answers.name, "mine"}


def test_answers_from_disk_save_time(tmp_path: Path) -> None:
    part = FolderSet.open(write_set(tmp_path / "set", 3))
    times = step_times(model_of(), part.samples, tmp_path / "answers", rounds=3)
    assert 0 < times.cached < times.uncached
    assert (times.images, times.objects, times.side) == (2, 3, 64)
    with pytest.raises(ValueError, match="1 of 1 pictures have an object; a step takes 2"):
        step_times(model_of(), part.samples[:1], tmp_path / "answers")
