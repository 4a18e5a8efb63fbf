"""What would be published works where nothing of this folder is.

The wheel is made from the sdist, as `python -m build` does, and installed alone into an empty environment. Its dependencies are not
installed again, which would take gigabytes and a network: a .pth file lends those of the environment that the tests run in, in which
ruac itself is then not to be found, as the tests assert.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and the wheel."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.fixture(scope="session")
def contents(built: Path) -> set[str]:
    """The names of the files in the wheel."""
    (wheel,) = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@dataclass(frozen=True)
class Elsewhere:
    """An environment that has the wheel, a home that is empty, and a folder to work in."""

    folder: Path
    ruac: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`ruac WORDS` without network and with nothing of this checkout."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "RUAC", "HF_"))
        }
        environment = kept | {"HOME": str(self.folder), "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            [str(self.ruac), *words], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="session")
def elsewhere(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    root = tmp_path_factory.mktemp("elsewhere")
    venv.create(root / "env", symlinks=True)
    (home := root / "home").mkdir()
    (packages,) = (root / "env" / "lib").glob("python*/site-packages")
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(root / "env"), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # as a path, not with site.addsitedir, so that the .pth file there, which would bring this checkout, is not read
    (packages / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return Elsewhere(home, root / "env" / "bin" / "ruac")


@pytest.mark.slow
def test_the_wheel_holds_what_runs_and_nothing_else(contents: set[str]) -> None:
    source = ROOT / "src"
    wanted = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {"ruac/py.typed", "ruac/weights/nano/model.safetensors", "ruac/weights/nano/README.md"} <= wanted
    assert {"ruac/label/review.html.j2", "ruac/label/review.js", "ruac/report/page.html.j2"} <= wanted
    metadata = {name for name in contents if ".dist-info/" in name}
    assert contents - metadata == wanted
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


@pytest.mark.slow
def test_the_wheel_is_what_the_sdist_makes(built: Path) -> None:
    names = sorted(path.name for path in built.iterdir())
    version = PROJECT["version"]
    assert names == [f"ruac-{version}-py3-none-any.whl", f"ruac-{version}.tar.gz"]
    assert (built / names[0]).stat().st_size < 12e6


@pytest.mark.slow
def test_doctor_finds_the_installed_package_well(elsewhere: Elsewhere) -> None:
    done = elsewhere.run("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"in {elsewhere.ruac.parents[1].resolve()}" in done.stdout.replace("lib64", "lib")
    assert str(ROOT / "src") not in done.stdout
    assert "checksums right" in done.stdout


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(elsewhere: Elsewhere) -> None:
    done = elsewhere.run("demo")
    assert done.returncode == 0, done.stderr
    told = json.loads((elsewhere.folder / "out" / "demo" / "grace_hopper.json").read_text())
    assert told["ruac"] == PROJECT["version"]
    assert told["expected_iou"] > 0.5
    assert (elsewhere.folder / "out" / "demo" / "grace_hopper.overlay.png").is_file()


@pytest.mark.slow
def test_the_readme_leads_to_a_labelled_folder(elsewhere: Elsewhere) -> None:
    """From the wheel, with a home that is empty; what sets up, and a pattern for the shell, aside."""
    from matplotlib import cbook

    (elsewhere.folder / "photos").mkdir()
    photograph = Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    (elsewhere.folder / "photos" / "a.jpg").write_bytes(photograph.read_bytes())
    readme = (ROOT / "README.md").read_text().split("## From nothing")[1]
    lines = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)[0].splitlines()
    commands = [line.partition("#")[0].split()[1:] for line in lines if line.startswith("ruac ")]
    assert [words[0] for words in commands] == ["doctor", "predict", "label"]
    for words in commands:
        done = elsewhere.run(*words)
        assert done.returncode == 0, done.stderr
    for name in ("review.html", "labels.json", "masks/a.png"):
        assert (elsewhere.folder / "labels" / name).is_file()
    assert json.loads((elsewhere.folder / "labels" / "labels.json").read_text())["annotations"]


def test_version_licence_and_changes_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    newest = re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", PROJECT["version"])


def test_types_are_published() -> None:
    assert (ROOT / "src" / "ruac" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]
