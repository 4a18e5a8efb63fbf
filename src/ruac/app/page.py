"""The page: a tab to click on one picture, and one to label many."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import cv2
import gradio as gr
from gradio.themes import Base

from ruac.app.desk import Desk
from ruac.app.labelling import Labelling
from ruac.app.samples import Sample
from ruac.app.view import PROBABILITY_COLOURS, UNCERTAINTY_COLOURS, css, data_url
from ruac.data.image import read_image
from ruac.overlay import BLUE, ORANGE

SCRIPTS = ("stage.js", "marks.js", "hands.js", "panel.js")  # of the tab to click in, as one
THUMBNAIL = 104  # pixels of the longer side
STEPS = 9  # colours of a scale
FONTS = ("system-ui", "sans-serif")  # of the reader's own machine
WAITING = 4  # folders to label
HEADING = "# ruac\nClick on an object to get its mask, and see where the mask may be wrong."
# outside of what gradio lets a style sheet reach
PHONE = "<style>@media (max-width: 520px) { .gradio-container > .main { padding: 10px !important; } }</style>"


def build(desk: Desk, labelling: Labelling, max_bytes: int) -> tuple[gr.Blocks, int]:
    """The page, and the number of its part that `desk` answers; max_bytes: of an uploaded file."""
    home = files("ruac.app")

    def ask(request: Any) -> Any:
        return desk.ask(request)

    with gr.Blocks(title="ruac", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(HEADING, elem_classes="heading")
        with gr.Tab("Click"):
            stage = gr.HTML(
                html_template=home.joinpath("stage.html").read_text(encoding="utf-8"),
                js_on_load="\n".join(home.joinpath(script).read_text(encoding="utf-8") for script in SCRIPTS),
                apply_default_css=False,
                server_functions=[ask],
                samples=[{"name": sample.name, "url": _thumbnail(sample)} for sample in desk.samples],
                models=list(desk.models.names),
                colours=_colours(),
                words=_words(desk.models.get(desk.models.first).guarantee is not None),
                max_bytes=max_bytes,
            )
            stage.props["part"] = stage._id
        with gr.Tab("Label a folder"):
            labelling.build()
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page, stage._id


def style() -> str:
    return files("ruac.app").joinpath("stage.css").read_text(encoding="utf-8")


def theme() -> Base:
    """Light or dark as the browser wishes, with hints that can be read."""
    faint, faint_in_dark = "*neutral_600", "*neutral_300"
    base = Base(primary_hue="blue", font=FONTS, font_mono=("ui-monospace", "monospace"))
    return base.set(
        body_text_color_subdued=faint,
        body_text_color_subdued_dark=faint_in_dark,
        block_info_text_color=faint,
        block_info_text_color_dark=faint_in_dark,
        checkbox_label_background_fill="none",
        checkbox_label_background_fill_dark="none",
        checkbox_label_background_fill_hover="none",
        checkbox_label_background_fill_hover_dark="none",
        checkbox_label_background_fill_selected="none",
        checkbox_label_background_fill_selected_dark="none",
        checkbox_label_padding="4px 0",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
    )


def _thumbnail(sample: Sample) -> str:
    image = read_image(sample.path)
    scale = THUMBNAIL / max(image.shape)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[..., ::-1])
    return data_url("image/jpeg", data.tobytes())


def _colours() -> dict[str, list[str]]:
    """Of the layers' keys, as CSS."""
    flat = {"mask": [BLUE], "band": [ORANGE]}
    scales = {"uncertainty": UNCERTAINTY_COLOURS, "probability": PROBABILITY_COLOURS}
    some = [round(255 * i / (STEPS - 1)) for i in range(STEPS)]
    return {name: [css(colour) for colour in colours] for name, colours in flat.items()} | {
        name: [css(palette[i]) for i in some] for name, palette in scales.items()
    }


def _words(calibrated: bool) -> dict[str, str]:
    """Of the layers that have one colour."""
    band = "between the inner and the outer mask" if calibrated else "holds 9 in 10 of all expected errors"
    return {"mask": "where the object is likelier than not", "band": band}
