"""What a recipe or an option may hold that does not fit: a line that names the file, the setting and what is wanted there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ruac.cli import main

RECIPE = {"data": "[data]", "out": "run", "stages": "[{steps: 2}]"}


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["train", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; see ruac train --help")
    return line.removesuffix("; see ruac train --help")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("seed", "x", "seed x: not a whole number"),
        ("clip", "[1]", "clip [1]: not a number"),
        ("precision", "foo", "precision foo: not one of no, bf16"),
        ("start", "3", "start 3: not text"),
        ("workers", "", "workers: has no value"),
        ("nonsense", "3", "nonsense is no setting"),
        ("data", "3", "data 3: not a list"),
        ("image_size", "-5", "image_size: -5; it must be at least 1"),
        ("workers", "-1", "workers: -1; it must be at least 0"),
        ("hedge", "3", "hedge 3: not settings"),
        ("scenes", "x", "scenes x: not settings"),
        ("hedge", "{deviations: }", "hedge.deviations: has no value"),
        ("hedge", "{deviations: x}", "hedge.deviations x: not a number"),
        ("hedge", "{deviations: 3}", "hedge.deviations: 3.0; give a share above 0, at most 1"),
        ("stages", "[3]", "stages 3: not settings"),
        ("stages", "[{steps: 2, images: x}]", "stages.images x: not a whole number"),
        ("stages", "[{steps: 2, images: }]", "stages.images: has no value"),
        ("stages", "[{steps: 2, images: 0}]", "stages.images: 0; it must be at least 1"),
        ("stages", "[{steps: 2, imags: 3}]", "stages.imags is no setting"),
        ("stages", "[{steps: 2, attack: 3}]", "stages.attack 3: not settings"),
        ("stages", "[{steps: 2, attack: {kind: }}]", "stages.attack.kind: has no value"),
        ("stages", "[{steps: 2, attack: {weight: 3}}]", "attack.weight: 3.0 is no share; give a number from 0 to 1"),
    ],
)
def test_a_setting_of_a_recipe_that_does_not_fit(
    name: str, content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in {**RECIPE, name: content}.items()))
    assert complaint(capsys, "--config", str(file)) == f"ruac: {file}: {message}"


def test_what_is_typed_is_named_as_it_was_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in RECIPE.items()))
    assert complaint(capsys, "--config", str(file), "--seed", "x") == "ruac: --seed x: not a whole number"
    assert complaint(capsys, f"--config={file}", "--validate-minuts", "3").startswith("ruac: unrecognized arguments: --validate-")
    assert complaint(capsys, "--config", str(tmp_path)) == f"ruac: Path is not a file: '{tmp_path}'"
