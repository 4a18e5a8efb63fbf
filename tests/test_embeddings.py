"""A picture goes through the image encoder once; what is kept is checked before it is used."""

from pathlib import Path

import pytest
import torch
from families import TINY, shaken, tiny_nano
from torch import Tensor

from ruac.features import Frame, ImageFeatures, Prompts
from ruac.heads import ExactHead
from ruac.model import RuacModel
from ruac.training.embeddings import POSITION, embeddings_key, encoded_once, half

CLICK = Prompts(torch.tensor([[[[20.0, 30.0]], [[40.0, 10.0]]]]), torch.ones(1, 2, 1, dtype=torch.long))


def model_of(name: str) -> RuacModel:
    torch.manual_seed(0)
    return RuacModel.around(shaken(tiny_nano() if name == "nano" else TINY[name]()))


def picture(seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def encode(model: RuacModel, seed: int = 0) -> ImageFeatures:
    prepared, frame = model.prepare(picture(seed))
    return model.encode(prepared[None], (frame,))


def same(a: ImageFeatures, b: ImageFeatures) -> bool:
    pairs = zip((*a.levels, a.position), (*b.levels, b.position), strict=True)
    return a.frames == b.frames and all(torch.equal(x, y) and x.stride() == y.stride() for x, y in pairs)


@pytest.mark.parametrize("name", ["nano", *TINY])
def test_every_family_is_encoded_once_and_answers_as_before(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    plain = encode(model)
    with encoded_once(model, tmp_path) as cached:
        first = encode(model)
        assert cached.encoded == 1
    with encoded_once(model, tmp_path) as cached:
        again = encode(model)
        assert cached.encoded == 0
    assert same(first, again)
    with torch.no_grad():
        before, after = (model(model.decode(features, CLICK)).mean for features in (plain, again))
    assert not torch.equal(plain.levels[-1], again.levels[-1])  # it has been rounded
    torch.testing.assert_close(after, before, rtol=0.02, atol=0.02 * before.abs().max().item())


def test_a_batch_is_kept_picture_by_picture(tmp_path: Path) -> None:
    model = model_of("nano")
    prepared = [model.prepare(picture(seed)) for seed in (0, 1)]
    with encoded_once(model, tmp_path) as cached, torch.no_grad():
        both = model.encode(torch.stack([image for image, _ in prepared]), tuple(frame for _, frame in prepared))
        assert cached.encoded == 2
        assert torch.equal(encode(model, 1).levels[0], both.levels[0][1:])
        assert cached.encoded == 2
    assert len(list(tmp_path.iterdir())) == 2 + 1


def test_other_pictures_frames_and_weights_are_encoded_anew(tmp_path: Path) -> None:
    model = model_of("sam")
    image, frame = model.prepare(picture())
    with encoded_once(model, tmp_path) as cached, torch.no_grad():
        first = model.encode(image[None], (frame,))
        encode(model, seed=1)
        model.encode(image[None], (Frame((40, 56), (64, 64)),))  # what is outside of the frame is blacked out
        assert cached.encoded == 3
    model.sam.vision_encoder.patch_embed.projection.bias += 1
    with encoded_once(model, tmp_path) as cached:
        assert not torch.equal(encode(model).levels[0], first.levels[0])
        assert cached.encoded == 1


def test_a_head_changes_nothing_about_the_key() -> None:
    model = model_of("nano")
    key = embeddings_key(model)
    assert isinstance(model.head, ExactHead)
    model.head.roughness.data += 1
    assert embeddings_key(model) == key
    next(model.sam.parameters()).data += 1
    assert embeddings_key(model) != key


@pytest.mark.parametrize("damage", ["a flipped bit", "half of it", "nothing left"])
@pytest.mark.parametrize("which", ["picture", "position"])
def test_damaged_files_are_made_again(which: str, damage: str, tmp_path: Path) -> None:
    model = model_of("nano")
    with encoded_once(model, tmp_path):
        whole = encode(model)
    (file,) = [path for path in tmp_path.iterdir() if (path.name == POSITION) == (which == "position")]
    good = file.read_bytes()
    bad = {
        "a flipped bit": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
        "half of it": good[: len(good) // 2],
        "nothing left": b"",
    }
    file.write_bytes(bad[damage])
    with encoded_once(model, tmp_path) as cached:
        assert same(encode(model), whole)
        assert cached.encoded == 1
    with encoded_once(model, tmp_path) as cached:
        assert same(encode(model), whole)
        assert cached.encoded == 0


def test_afterwards_the_model_is_as_it_was(tmp_path: Path) -> None:
    for name in ("nano", "sam2"):
        model = model_of(name)
        names, kind = set(model.state_dict()), type(model.family)
        with pytest.raises(KeyboardInterrupt), encoded_once(model, tmp_path):
            raise KeyboardInterrupt
        assert type(model.family) is kind
        assert set(model.state_dict()) == names


def test_features_beyond_half_precision_are_refused() -> None:
    assert half(torch.tensor([65504.0])).item() == 65504
    for value in (7e4, torch.nan):
        with pytest.raises(ValueError, match="beyond 65504"):
            half(torch.tensor([value]))
