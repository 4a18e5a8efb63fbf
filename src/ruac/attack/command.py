"""`ruac attack`: what an attack does to a photograph, and to the uncertainty of its mask, in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ruac.writing import require_folder, write_whole

if TYPE_CHECKING:
    from ruac.attack.batch import LabelledBatch
    from ruac.attack.sheet import Tried
    from ruac.data.scenes import Scene
    from ruac.model import RuacModel

Kind = Literal[
    "style",
    "deformation",
    "cooperative",
    "noise",
    "random-style",
    "random-deformation",
    "mixstyle",
    "dsu",
    "stylegen",
    "patch",
    "pgd",
]
OBJECTS = 5  # of a picture, the largest
OF_SEVERAL = ("mixstyle", "dsu")  # what they do to a picture comes from the others
LEARNING_RATE = 3e-3


def attack(
    pictures: list[Path],
    kind: Kind = "cooperative",
    out: Path = Path("out"),
    model: str = "nano",
    head: Path | None = None,
    alignment: Literal["paper", "proper"] = "proper",
    steps: int = 50,
    seed: int = 0,
) -> None:
    """Attack photographs whose masks you have, and see what becomes of the model's answer and of its doubt.

    Attacks that learn are trained on these very pictures, against the frozen model. Writes <out>/attack.<kind>.png, a row a picture:
    clean, attacked, how pixels moved, how their colours changed, and the uncertainty before and after.

    Example: ruac attack photo.jpg photo.mask.png --kind cooperative --out out

    Args:
        pictures: Photographs, each followed by its mask (object ids, or 0 and 255).
        kind: Of attack.
        out: Folder for the picture; made if need be.
        model: nano, a folder or a hub id.
        head: A head trained for that model, as a file.
        alignment: What the attack is to make large: how badly uncertainty and error fit, by the paper's formula or a proper score.
        steps: Of learning, or of climbing for pgd.
        seed: Of everything that is drawn.

    Raises:
        ValueError: For a mask that does not fit its photograph, an odd number of pictures, and one alone where several are mixed.
        FileNotFoundError: When a file or the model is missing.
    """
    if len(pictures) % 2:
        raise ValueError("name a mask after every photograph: ruac attack photo.jpg photo.mask.png")
    if kind in OF_SEVERAL and len(pictures) < 4:
        raise ValueError(f"--kind {kind}: it mixes the styles of several pictures; name two photographs and their masks, or more")
    require_folder(out)
    if steps < 1:
        raise ValueError(f"--steps {steps}: at least 1")

    from ruac.attack.sheet import draw_sheet
    from ruac.loading import load

    loaded = load(model, head=head).requires_grad_(False)
    scenes = [_scene(loaded, image, mask) for image, mask in zip(pictures[::2], pictures[1::2], strict=True)]
    tried = try_attack(loaded, scenes, kind, alignment, steps, seed)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / f"attack.{kind}.png", draw_sheet(tried))
    for name, values in tried.attacked.magnitudes.items():
        print(f"{name.replace('_', ' '):<18}" + "  ".join(f"{value:.3g}" for value in values.tolist()))
    print(f"Picture: {out / f'attack.{kind}.png'}")


def try_attack(
    model: RuacModel, scenes: list[Scene], kind: str, alignment: Literal["paper", "proper"], steps: int, seed: int
) -> Tried:
    """The pictures before and after an attack, trained on them if it is one that learns."""
    import torch
    from rich.progress import track
    from torch import nn

    from ruac.attack import AttackSettings, make_attack
    from ruac.attack.sheet import Tried
    from ruac.attack.trial import answer, labelled_batch, misalignment, with_slope
    from ruac.data.folder import object_ids

    torch.manual_seed(seed)
    sizes = [{i: int((scene.ids == i).sum()) for i in object_ids(scene.ids)} for scene in scenes]
    batch = labelled_batch(scenes, [sorted(size, key=lambda i: -size[i])[:OBJECTS] for size in sizes])

    def objective(changed: LabelledBatch) -> torch.Tensor:
        return misalignment(answer(model, changed), changed, alignment)

    with torch.no_grad():
        features = model.encode(batch.images, ())
    channels = features.levels[-1].shape[1]
    generator = torch.Generator().manual_seed(seed)
    made = make_attack(kind, AttackSettings(channels, generator, pgd_steps=steps, objective=objective))
    if isinstance(made, nn.Module):
        batch = with_slope(batch, objective)
        optimizer = torch.optim.Adam(made.parameters(), lr=LEARNING_RATE)
        for _ in track(range(steps), f"learning {kind}", transient=True):
            optimizer.zero_grad()
            objective(made(batch, features)).backward()
            optimizer.step()
        made.eval()
    attacked = made(batch, features)
    with torch.no_grad():
        return Tried(batch, attacked, answer(model, batch), answer(model, attacked))


def _scene(model: RuacModel, image: Path, mask: Path) -> Scene:
    """The picture as the model sees it, and the ids of its objects."""
    import torch

    from ruac.data.folder import IGNORE, read_mask
    from ruac.data.image import read_image
    from ruac.data.scenes import Scene

    pixels = read_image(image)
    if not mask.is_file():
        raise FileNotFoundError(f"{mask}: no such mask")
    ids = read_mask(mask)
    if ids.shape != pixels.shape[:2]:
        raise ValueError(f"{mask}: {ids.shape[1]} x {ids.shape[0]} pixels, but {image} has {pixels.shape[1]} x {pixels.shape[0]}")
    if set(np.unique(ids)) <= {0, IGNORE}:
        ids = (ids > 0).astype(np.uint8)  # what `ruac predict` writes
    prepared, frame = model.prepare(torch.from_numpy(pixels).permute(2, 0, 1))
    placed = np.full(prepared.shape[1:], IGNORE, np.uint8)
    rows, columns = frame.inside
    placed[:rows, :columns] = ids[_nearest(ids.shape[0], rows)][:, _nearest(ids.shape[1], columns)]
    if not (set(np.unique(placed)) - {0, IGNORE}):
        raise ValueError(f"{mask}: no object in it")
    return Scene(prepared.permute(1, 2, 0).numpy(), placed)


def _nearest(original: int, size: int) -> np.ndarray:
    """Of `size` pixels, the original one that each shows."""
    return ((np.arange(size) + 0.5) * original / size).astype(int).clip(0, original - 1)
