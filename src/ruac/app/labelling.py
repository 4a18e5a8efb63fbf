"""The tab that labels many pictures with `ruac label`, and shows its review page."""

from __future__ import annotations

import html
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from ruac.app.models import Models
from ruac.app.room import Room
from ruac.data.layout import name_of
from ruac.errors import WorkError
from ruac.label.command import label
from ruac.output import output_names
from ruac.serve.problems import DISK

MOST_PICTURES = 200  # uploaded at once
UPLOADED, ALLOWED = "pictures that I upload", "the folder on the server"
EVERYTHING, TOLD = "everything that looks like an object", "what a file of clicks or boxes says"
WAIT = "<p>The masks appear here, with those to check first.</p>"


class Labelling:
    """folder: that may be labelled beside what is uploaded, or None; room: where uploads and results are."""

    def __init__(self, models: Models, folder: Path | None, room: Room):
        self._models, self._folder, self._room = models, folder, room

    def build(self) -> None:
        """The tab's components, in the page that is being built."""
        places = [UPLOADED, *([ALLOWED] if self._folder else [])]
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                place = gr.Radio(places, value=places[-1], label="Which pictures", visible=len(places) > 1)
                uploads = gr.File(
                    label=f"Pictures, at most {MOST_PICTURES}", file_count="multiple", height=170, visible=places[-1] == UPLOADED
                )
                what = gr.Radio([EVERYTHING, TOLD], value=EVERYTHING, label="What to look for")
                prompts = gr.File(
                    label="Clicks or boxes: JSON, CSV or COCO", file_types=[".json", ".csv"], visible=False, height=170
                )
                budget = gr.Textbox("10%", label="Masks that a person can look at", info="a share or a number", max_length=10)
                model = gr.Dropdown(
                    list(self._models.names), value=self._models.first, label="Model", visible=len(self._models.names) > 1
                )
                start = gr.Button("Label", variant="primary")
            with gr.Column(scale=3, min_width=320):
                said = gr.Markdown("", min_height=48)
                results = gr.DownloadButton("Download masks, labels.json and review.html", visible=False)
                review = gr.HTML(WAIT, elem_classes="review")
        place.change(lambda choice: gr.File(visible=choice == UPLOADED), place, uploads, api_visibility="private", queue=False)
        what.change(lambda choice: gr.File(visible=choice == TOLD), what, prompts, api_visibility="private", queue=False)
        start.click(
            self._run,
            [place, uploads, what, prompts, budget, model],
            [said, results, review],
            api_visibility="private",
            show_progress_on=said,
        )

    def _run(
        self, place: str, uploads: list[str] | None, what: str, prompts: str | None, budget: str, model: str
    ) -> tuple[str, gr.DownloadButton, str]:
        """Raises gr.Error for what the person can put right."""
        if self._room.nbytes > self._room.most_bytes:
            raise gr.Error("there is no room left for results; try again in half an hour", print_exception=False)
        told = [*(uploads or []), *([prompts] if prompts else [])]
        self._room.use(map(Path, told))
        with _disk_reported(), tempfile.TemporaryDirectory(dir=self._room.work) as work:
            out = Path(work)
            try:
                said = self._label(place, uploads or [], what, prompts, budget, model, out)
            except (ValueError, FileNotFoundError) as error:
                # where files lie here is nobody's business
                message = str(error).removeprefix("--budget ")  # which is the name of no field here
                for folder in (out, *(Path(path).parent for path in told)):
                    message = message.replace(f"{folder}/", "")
                raise gr.Error(message, print_exception=False) from None
            page = (out / "labels" / "review.html").read_text(encoding="utf-8")
            # whoever knows the address may download it
            shelf = self._room.files / secrets.token_hex(16)
            try:
                archive = shutil.make_archive(str(shelf / "labels"), "zip", out / "labels")
            except OSError:
                shutil.rmtree(shelf, ignore_errors=True)  # half of one
                raise
        # in a box of its own: its script reaches nothing of this page
        frame = (
            f'<iframe title="Review of the masks" sandbox="allow-scripts allow-downloads" srcdoc="{html.escape(page)}"></iframe>'
        )
        return said, gr.DownloadButton(value=archive, visible=True), frame

    def _label(
        self, place: str, uploads: Sequence[str], what: str, prompts: str | None, budget: str, model: str, out: Path
    ) -> str:
        """Raises ValueError when there is nothing to label, or it cannot be done at all."""
        allowed = self._folder if place == ALLOWED else None
        pictures = allowed or _gathered([Path(path) for path in uploads], out / "pictures")
        if what == TOLD and prompts is None:
            raise ValueError("upload the file that says where the objects are")
        told = Path(prompts) if what == TOLD and prompts else None
        try:
            label([str(pictures)], told, told is None, out / "labels", budget, **self._models.options(model))
        except WorkError as error:
            if not (out / "labels" / "review.html").is_file():
                raise ValueError(str(error)) from None
            heading, *lines = str(error).replace(f"{pictures}/", "").splitlines()
            return "\n".join([heading, "", *(f"- `{line}`" for line in lines)])
        return ""


@contextmanager
def _disk_reported() -> Iterator[None]:
    """Raises gr.Error where the disk takes nothing, without the paths on it."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise gr.Error(f"the server cannot keep the results: {error.strerror}", print_exception=False) from None


def _gathered(uploads: Sequence[Path], folder: Path) -> Path:
    """The uploaded files in one folder, each with a name of its own. Raises ValueError for none, and for too many."""
    if not 0 < len(uploads) <= MOST_PICTURES:
        raise ValueError(f"upload pictures to label, at most {MOST_PICTURES}; {len(uploads)} are there")
    folder.mkdir()
    for upload, name in zip(uploads, output_names(uploads), strict=True):
        (folder / f"{name_of(name)}{upload.suffix}").hardlink_to(upload)
    return folder
