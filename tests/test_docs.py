"""What README and documentation show works, and what they name is there.

Every block of code is executed, page by page and in order, in a folder of its own with the files that the pages speak of. How
blocks are marked is written in docs/contributing.md.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
import zlib
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest
from families import TINY, shaken
from packaging.requirements import Requirement
from PIL import Image

from ruac import cli, save_head
from ruac.model import RuacModel

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARK = "# not run by the tests: "
# every reason not to run a block; a new one is to be weighed here
REASONS = {
    "a server, which goes on until it is stopped",
    "needs GPUs",
    "needs a cluster",
    "needs a data set that is to be fetched by hand",
    "needs georeferenced pictures",
    "needs several processes or GPUs",
    "reads the data sets of RUAC_DATA, for minutes to hours",
    "takes hours",
    "tests/test_release.py does the same in a folder of its own",
}
# pages whose blocks need more around them than a folder
ELSEWHERE = {"server.md": "test_serve_docs.py"}
# a page that a benchmark writes: what its blocks do takes a cluster
ON_CLUSTERS = "scale.md"
# what is there after a page's blocks have run
LEAVES = {
    "README.md": ["out/a.overlay.png", "labels/review.html", "labels/labels.json", "runs/mine/head.safetensors"],
    "start.md": [f"out/photo.{what}" for what in ("overlay.png", "mask.png", "uncertainty.png", "json")],
    "label.md": ["labels/review.html", "labels/review.csv", "labels/labels.json", "labels/masks/a.png", "corrected.json"],
    "guarantees.md": ["calibration.json", "out/photo.outer.png", "out/photo.inner.png"],
    "video.md": ["track/masks/00002.png", "track/track.json", "track/overlay.mp4"],
    "engines.md": ["before.json", "exported/decoder.onnx"],
    "train.md": ["runs/head/report.md", "runs/small/model/model.safetensors", "out/attack.cooperative.png"],
    "evaluate.md": ["runs/eval/summary.md", "report/report.html", "clicks.jsonl", "runs/mine/summary.md"],
    "contributing.md": ["docs/pictures/maps.webp", "docs/licences.md"],
}


@dataclass(frozen=True)
class Block:
    """kind: the word after the fence; title: the file that it is, if it is one."""

    kind: str
    title: str | None
    text: str

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        first = self.text.partition("\n")[0]
        return first.removeprefix(MARK) if first.startswith(MARK) else None

    @property
    def lines(self) -> list[str]:
        """The commands."""
        return [line for line in self.text.splitlines() if line.strip() and not line.startswith("#")]


def blocks_of(page: Path) -> list[Block]:
    found = re.findall(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(kind, title or None, text) for kind, title, text in found]


PAGES = [ROOT / "README.md", *(page for page in sorted(DOCS.glob("*.md")) if page.name not in (*ELSEWHERE, ON_CLUSTERS))]
WITH_BLOCKS = [page for page in PAGES if any(block.kind in ("sh", "python") and not block.reason for block in blocks_of(page))]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    square(480, 640, (140, 340), (220, 420)).save("photo.jpg")
    Path("photos").mkdir()
    for name in "ab":
        square(240, 340, (80, 200), (60, 280)).save(f"photos/{name}.jpg")
    Path("clip").mkdir()
    for number in range(3):
        square(96, 128, (20, 60), (20 + number, 60 + number)).save(f"clip/{number:05d}.jpg")
    write_set(Path("my_set"))
    (boxes,) = [block for block in blocks_of(DOCS / "label.md") if block.title == "boxes.json"]
    Path("boxes.json").write_text(boxes.text)
    sam = shaken(TINY["sam2"]())
    sam.save_pretrained("facebook/sam2.1-hiera-small")
    model = RuacModel.around(sam)
    model.config.head_trained = True
    save_head(model, Path("mine.safetensors"))
    Path("docs").mkdir()
    for script in DOCS.glob("*.py"):
        Path("docs", script.name).write_text(script.read_text())
    Path("src").symlink_to(ROOT / "src")
    Path(".venv").symlink_to(sys.prefix)
    return tmp_path


def square(height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]) -> Image.Image:
    """A red one on grey."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[slice(*rows), slice(*columns)] = (200, 40, 30)
    return Image.fromarray(pixels)


def write_set(root: Path, pictures: int = 21) -> None:
    """Pictures of a square each; two of them are held out."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    names = [f"{number:03d}" for number in range(200)]
    held_out = [name for name in names if zlib.crc32(name.encode()) % 20 == 0]
    rest = [name for name in names if name not in held_out]
    for name in held_out[:2] + rest[: pictures - 2]:
        top, left = int(rng.integers(5, 50)), int(rng.integers(5, 80))
        rows, columns = (top, top + 30), (left, left + 30)
        square(96, 128, rows, columns).save(root / "images" / f"{name}.png")
        mask = np.zeros((96, 128), np.uint8)
        mask[slice(*rows), slice(*columns)] = 1
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore:the uncertainty of:UserWarning")
def test_every_block_runs(page: Path, workplace: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks_of(page):
        if block.reason:
            continue
        if block.title:
            Path(block.title).write_text(block.text)
        elif block.kind == "python":
            exec(compile(block.text, page.name, "exec"), names)
        elif block.kind == "sh":
            for line in block.lines:
                run(line)
    for path in LEAVES.get(page.name, []):
        assert Path(path).is_file(), path


def run(line: str) -> None:
    """A command of ruac in this process, which has torch already; make without doing it; anything else by the shell."""
    words = shlex.split(line, comments=True)
    if words[0] == "ruac":
        code = cli.main([name for word in words[1:] for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])])
        assert code == 0, line
        return
    dry = ["make", "--dry-run", "--directory", str(ROOT), *words[1:]] if words[0] == "make" else ["bash", "-c", line]
    done = subprocess.run(dry, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_that_do_not_run_say_why_and_name_what_is_there(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for block in blocks_of(page):
        if block.reason is None:
            continue
        assert block.reason in REASONS
        assert block.kind == "sh"
        for line in block.lines:
            words = shlex.split(line, comments=True)
            if "ruac" in words:
                assert_understood(words[words.index("ruac") + 1 :])
            elif words[:1] == ["python"] and words[1] != "-m":
                assert (ROOT / words[1]).is_file(), line


def assert_understood(words: list[str]) -> None:
    """Raises ArgumentError for an option that there is not."""
    name = next(name for name in sorted(cli.COMMANDS, key=len, reverse=True) if words[: len(name.split())] == name.split())
    command = cli.COMMANDS[name]
    method, rest = cli._method(command, words[len(name.split()) :])
    cli._parse(name, command, method, rest)


def test_commands_for_clusters_are_understood() -> None:
    lines = [line for block in blocks_of(DOCS / ON_CLUSTERS) for line in block.lines if " ruac " in f" {line}"]
    assert lines
    for line in lines:
        words = shlex.split(line.partition("; done")[0], comments=True)
        assert_understood(words[words.index("ruac") + 1 :])


def test_no_reason_is_left_over() -> None:
    assert {block.reason for page in PAGES for block in blocks_of(page) if block.reason} == REASONS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_tested(page: Path) -> None:
    """`text` are formulas and layouts; ablation.md is written by a command, which leaves out the kind."""
    for block in blocks_of(page):
        assert block.kind in {"sh", "python", "text", *([""] if page.name == "ablation.md" else [])} or block.title
        if block.kind == "python":
            ast.parse(block.text)


def test_pages_that_are_tested_elsewhere_are() -> None:
    for page, test in ELSEWHERE.items():
        assert (DOCS / page).is_file()
        assert page in (ROOT / "tests" / test).read_text()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "site" / "commands" / "index.html").read_text()
    for name in cli.COMMANDS:
        assert f"usage: ruac {name}" in commands
    assert "set_image" in (tmp_path / "site" / "api" / "index.html").read_text()
    assert "Zero-shot results" in (tmp_path / "site" / "model_card" / "index.html").read_text()


def test_the_architecture_names_all_that_is_there() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row) if name != "src/ruac/"]
    there = [f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "src" / "ruac").iterdir()]
    assert sorted(named) == sorted(name for name in there if name != "__pycache__/")


def test_no_file_is_longer_than_the_rule_says() -> None:
    rule = re.search(r"No file over (\d+) lines", (DOCS / "contributing.md").read_text())
    assert rule
    folders = ("src", "tests", "benchmarks", "examples")
    files = [
        path for folder in folders for kind in ("py", "js", "html", "j2", "css") for path in (ROOT / folder).rglob(f"*.{kind}")
    ]
    assert len(files) > 300
    assert [path for path in files if len(path.read_text().splitlines()) > int(rule[1])] == []


def test_the_architecture_is_as_it_says() -> None:
    """Families know nothing of heads, heads nothing of families, and nothing but `python -m ruac` imports the command line."""

    def imports(path: Path) -> set[str]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}

    source = ROOT / "src" / "ruac"
    assert not any("ruac.heads" in imports(path) for path in source.glob("families/*.py"))
    for name in ("heads.py", "weibull.py"):
        assert not any(module.startswith(("ruac.families", "ruac.model")) for module in imports(source / name))
    assert [path.name for path in sorted(source.rglob("*.py")) if "ruac.cli" in imports(path)] == ["__main__.py"]


def test_files_that_the_pages_name_are_there() -> None:
    for page in PAGES:
        for name in re.findall(r"`((?:src|configs|benchmarks|docs|tests)/[\w./-]*\w/?)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
    text = (DOCS / "results.md").read_text()
    programs = [path.name for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text()]
    assert [name for name in programs if f"benchmarks/{name}" not in text] == []


def test_pictures_are_small() -> None:
    pictures = list((DOCS / "pictures").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 150_000, picture.name
        assert any(f"pictures/{picture.name}" in page.read_text() for page in PAGES), f"{picture.name}: on no page"


def test_every_package_has_its_licence() -> None:
    text = (DOCS / "licences.md").read_text()
    wanted = [Requirement(line) for line in requires("ruac") or []]
    used = {one.name for one in wanted if not one.marker or not re.search("'dev'|'docs'|\"dev\"|\"docs\"", str(one.marker))}
    assert used <= set(re.findall(r"^\| ([\w.-]+) \|", text, re.MULTILINE))
    card = (ROOT / "src" / "ruac" / "weights" / "nano" / "README.md").read_text()
    trained_on = re.findall(r"^\| (\w+) \| \d+ \|", card.split("## Training data")[1].split("## ")[0], re.MULTILINE)
    assert len(trained_on) >= 5
    assert all(f"| {name} |" in text for name in trained_on)


def test_readme_takes_ten_commands_at_most_from_nothing_to_labels() -> None:
    (block,) = [block for block in blocks_of(ROOT / "README.md") if "ruac label" in block.text]
    assert block.lines[0].startswith("make demo")
    assert len(block.lines) <= 10
    assert "--out labels " in block.lines[-1]


def test_make_has_the_targets_that_pages_ask_for() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = {line.split()[1] for page in PAGES for block in blocks_of(page) for line in block.lines if line.startswith("make ")}
    assert asked
    assert asked <= set(targets)
