"""The page: drop in a hazy photograph, compare before and after, take the clear one home; and the leaderboard."""

import csv
import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

try:  # there on a ZeroGPU Space, where it must come before torch
    from spaces import GPU
except ImportError:

    def GPU(function):
        return function


import gradio as gr
import numpy as np
import torch
from gradio.utils import get_upload_folder
from PIL import Image
from safetensors import safe_open

import dehaze
from bench import metrics
from bench.record import RESULTS
from bench.report.table import ARROWS
from dehaze import hub, image
from dehaze.errors import DehazeError
from leaderboard import view

MAX_MEGAPIXELS = 60
PREVIEW_SIDE = 1600  # what the browser is shown; the download has every pixel
SCORED_SIDE = 800
KEPT_SECONDS = 3600
SAMPLE = Path(__file__).parent / "bench" / "sample"

# What a model does, for people who have never met one.
INTRODUCTIONS = {
    "api": "trained network, natural colours",
    "dcp": "dark channel prior, the classic of 2009, strong contrast",
}
SCORES = {"niqe": ("NIQE", "how unnatural it looks"), "fade_refit": ("FADE, refitted", "how foggy it looks")}


@dataclass(frozen=True)
class Result:
    """What a visitor's session keeps of a run, at full strength, so that the strength can be changed afterwards."""

    name: str  # of the file to take home
    summary: str
    hazy: image.Photo
    restored: image.Photo
    before: Image.Image  # previews
    after: Image.Image

    @cached_property
    def before_file(self) -> Path:
        return save_preview(self.before, f"{Path(self.name).stem}_before.png")

    @cached_property
    def scores_before(self) -> dict[str, float | None]:
        return measure(self.before)

    def photo(self, strength: float) -> image.Photo:
        """Return the photograph between the hazy one (0) and the fully restored one (1)."""
        if strength == 1:
            return self.restored
        return self.hazy.with_tensor(torch.lerp(self.hazy.tensor(), self.restored.tensor(), strength))


# A photograph in


@cache
def dehazer(model: str) -> dehaze.Dehazer:
    return dehaze.load(model)


@GPU
def restore(model: str, photo: image.Photo, strength: float = 1.0) -> dehaze.Restoration:
    return dehazer(model)(photo, strength)


@contextmanager
def explained(title: str, path: Path) -> Iterator[None]:
    """Turn the errors that say what to do into messages on the page, without the server's folders in them."""
    try:
        yield
    except (DehazeError, ValueError) as error:
        # The limit is ours, and visitors cannot raise it.
        message = str(error).replace(str(path), path.name).replace(", or raise max_megapixels", "")
        raise gr.Error(html.escape(message, quote=False), 30, title=title, print_exception=False) from None


def read(upload: dict[str, Any] | None) -> tuple[image.Photo, Path]:
    """Read an uploaded file. Raises gr.Error that says what is wrong with it."""
    if upload is None:
        raise gr.Error(
            "There is no photograph yet. Add one, or click an example.", title="No photograph", print_exception=False
        )
    path = Path(upload["path"])
    with explained("This photograph cannot be read", path):
        return image.read(path, max_megapixels=MAX_MEGAPIXELS), path


def output_name(path: Path, photo: image.Photo) -> str:
    """Name the restored file after the input and keep its format, if that can hold the photograph."""
    suffix = path.suffix.lower()
    opaque = (".jpg", ".jpeg", ".bmp")
    if suffix not in image.WRITABLE or (photo.alpha is not None and suffix in opaque):
        suffix = ".png"
    return f"{path.stem}_dehazed{suffix}"


def on_disk(photo: image.Photo) -> image.Photo:
    """Move the pixels into a file without a name, which is gone with the photograph: sessions would fill the memory."""
    with TemporaryFile() as file:
        pixels = np.memmap(file, photo.pixels.dtype, "w+", shape=photo.pixels.shape)
    pixels[:] = photo.pixels
    return replace(photo, pixels=pixels)


def in_cache(name: str) -> Path:
    """Return a path in the folder that the page serves files from and empties in time."""
    folder = Path(get_upload_folder()) / uuid4().hex
    folder.mkdir(parents=True)
    return folder / name


# What is shown of it


def preview(photo: image.Photo) -> Image.Image:
    """Return a copy for the screen: RGB, 8 bits, long side at most PREVIEW_SIDE, transparency on white."""
    depth = np.iinfo(photo.pixels.dtype).bits - 8
    picture = Image.fromarray((photo.pixels >> depth).astype(np.uint8))
    if photo.alpha is not None:
        white = Image.new("RGB", picture.size, "white")
        picture = Image.composite(picture, white, Image.fromarray((photo.alpha >> depth).astype(np.uint8)))
    if photo.icc_profile and "RGB" in photo.mode:
        picture.info["icc_profile"] = photo.icc_profile
    picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    return picture


def save_preview(picture: Image.Image, name: str) -> Path:
    path = in_cache(name)
    picture.save(path, compress_level=3)
    return path


@cache
def colour_table() -> np.ndarray:
    """Return the 256 colours of the haze density, [256, 3] uint8: perceptually even, safe for the colour-blind."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.arange(256), bytes=True)[:, :3]


def density_map(density: np.ndarray, picture: Image.Image) -> Image.Image:
    """Colour the density [H,W] in [0,1] over the greys of the photograph."""
    grey = picture.convert("L")
    grey.thumbnail((SCORED_SIDE, SCORED_SIDE))
    small = np.asarray(Image.fromarray(density).resize(grey.size, Image.Resampling.BILINEAR))
    colours = colour_table()[(small * 255).round().astype(np.uint8)]
    return Image.blend(Image.fromarray(colours), grey.convert("RGB"), 0.3)


def measure(picture: Image.Image) -> dict[str, float | None]:
    """Score a photograph without a reference, on a copy with a long side of at most SCORED_SIDE; None if too small."""
    small = picture.copy()
    small.thumbnail((SCORED_SIDE, SCORED_SIDE), Image.Resampling.LANCZOS)
    tensor = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None] / 255
    scores: dict[str, float | None] = {}
    for name in SCORES:
        try:
            scores[name] = float(metrics.get(name)(tensor))
        except metrics.MetricError:
            scores[name] = None
    return scores


def score_table(before: dict[str, float | None], after: dict[str, float | None], summary: str) -> str:
    """Render the scores before and after, with what they mean."""
    rows = []
    for name, (title, meaning) in SCORES.items():
        arrow = ARROWS[metrics.spec(name).direction]
        old, new = before[name], after[name]
        if old is None or new is None:
            cells, verdict = "<td>–</td><td>–</td>", "too small to measure"
        else:
            cells = f"<td>{old:.2f}</td><td>{new:.2f}</td>"
            better = (new < old) == (arrow == "↓")
            verdict = "unchanged" if f"{old:.2f}" == f"{new:.2f}" else "better" if better else "worse"
        rows.append(
            f"<tr><th scope=row>{title} {arrow}<small>{meaning}</small></th>{cells}"
            f"<td class='verdict {verdict.split()[0]}'>{verdict}</td></tr>"
        )
    return (
        "<table><thead><tr><th>score</th><th>before</th><th>after</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table><p>{summary}</p>"
        f"<p>↓ lower is better. Measured on copies with a long side of at most {SCORED_SIDE} pixels, without knowing "
        "the clear scene: hints, no more, so trust your eyes. FADE is computed with statistics refitted by this "
        "project (<b>fade_refit</b>) and is not comparable with published FADE.</p>"
    )


# Events


def run(upload: dict | None, model: str) -> tuple[Result, Path | None]:
    """Restore an uploaded photograph in full; return what the session keeps, and the picture of its haze density."""
    photo, path = read(upload)
    with explained("This photograph cannot be restored", path):
        restoration = restore(model, photo)
    before = preview(photo)
    megapixels = photo.pixels[..., 0].size / 1e6
    result = Result(
        name=output_name(path, photo),
        summary=f"{megapixels:.1f} megapixels restored by {html.escape(model)} in {restoration.seconds:.1f} s.",
        hazy=on_disk(photo),
        restored=on_disk(restoration.photo),
        before=before,
        after=preview(restoration.photo),
    )
    if restoration.density is None:
        return result, None
    return result, save_preview(density_map(restoration.density, before), f"{path.stem}_haze_density.png")


def show(result: Result | None, strength: float | None) -> Iterator[tuple]:
    """Show a result at a strength: first the picture, then the scores, at last the file to take home."""
    if result is None or strength is None:  # the number was deleted, and another is being typed
        return
    strength = min(max(strength, 0), 1)
    waiting = gr.DownloadButton("Preparing the download …", interactive=False)
    after = Image.blend(result.before, result.after, strength)
    yield (result.before_file, save_preview(after, f"{Path(result.name).stem}_after.png")), gr.skip(), waiting
    yield gr.skip(), score_table(result.scores_before, measure(after), result.summary), gr.skip()
    photo = result.photo(strength)
    with explained("This photograph cannot be saved", path := in_cache(result.name)):
        photo.save(path)
    height, width = photo.pixels.shape[:2]
    label = f"Download {path.suffix[1:].upper()}, {width}×{height}"
    yield gr.skip(), gr.skip(), gr.DownloadButton(label, path, interactive=True)


def remove_haze(photo: dict | None, model: str, strength: float) -> tuple[str, str | None, dict]:
    """Remove haze from a photograph.

    Returns the restored photograph (same size, and same format where that is JPEG, PNG, WebP or TIFF), the estimated
    haze density as a grey PNG (0 clear, 255 opaque; null if the model knows none), and seconds, megapixels and
    no-reference scores before and after (lower is better, null if the photograph is too small).

    Args:
        photo: The photograph, up to 60 megapixels and 100 MB: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF.
        model: The name of the model.
        strength: From 0, which keeps the photograph, to 1, which restores it in full.
    """
    taken, path = read(photo)
    with explained("This photograph cannot be restored", path):
        restoration = restore(model, taken, float(strength))
        restored = restoration.save(in_cache(output_name(path, taken)))
    density = None
    if restoration.density is not None:
        density = str(in_cache(f"{path.stem}_haze_density.png"))
        Image.fromarray((restoration.density * 255).round().astype(np.uint8)).save(density, compress_level=3)
    facts = {"model": model, "strength": strength, "seconds": restoration.seconds}
    facts["megapixels"] = taken.pixels[..., 0].size / 1e6
    scores = {"before": measure(preview(taken)), "after": measure(preview(restoration.photo))}
    return str(restored), density, facts | scores


# The page

TITLE = "Dehaze"
INTRO = """
<h1>Dehaze</h1>
<p>Drop in a photograph that haze, fog or smog has washed out, and take it home clear.</p>
"""
FOOTER = """
<p>Haze hides what is behind it: where it is thick, no software can bring the details back, and some noise may show.
Photographs may have up to 60 megapixels and 100 MB. They are restored on this server, shown to nobody else, and
deleted within two hours. Free software under the Apache License 2.0.</p>
"""
WAITING = "<p>Scores before and after appear here.</p>"
CSS = """
.gradio-container { width: 100%; min-width: 0; }
.gradio-container > .main { width: 100%; max-width: 1280px !important; }
footer .divider { display: none; }
.html-container { padding: 0 !important; }
#intro h1 { width: fit-content; margin: .5rem 0 0; font-size: 2rem; font-weight: 700; letter-spacing: -.02em;
  background: linear-gradient(90deg, #94a3b8, #0284c7 70%); background-clip: text; color: transparent; }
#intro p { margin: 0; color: var(--body-text-color-subdued); }
#footer p { max-width: 60rem; font-size: .85rem; color: var(--body-text-color-subdued); }
#model label { width: 100%; }
#credits p, #credits a { margin: 0; padding: 0; font-size: .85rem; color: var(--body-text-color-subdued); }
#slider .empty::after { content: "Before and after appear here"; position: absolute; margin-top: 4rem;
  color: var(--body-text-color-subdued); }
#legend { display: flex; gap: .6rem; align-items: center; font-size: .85rem; color: var(--body-text-color-subdued); }
#legend div { flex: 1; height: .6rem; border-radius: .3rem; }
#scores table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
#scores table, #scores tr, #scores th, #scores td { border: 0; }
#scores th, #scores td { padding: .4rem .6rem .4rem 0; border-bottom: 1px solid var(--border-color-primary) !important;
  text-align: left; }
#scores thead th { font-weight: 400; color: var(--body-text-color-subdued); }
#scores small { display: block; font-weight: 400; color: var(--body-text-color-subdued); }
#scores p { margin: .6rem 0 0; font-size: .85rem; color: var(--body-text-color-subdued); }
#scores .better { color: #15803d; } .dark #scores .better { color: #4ade80; }
#scores .worse { color: #b45309; } .dark #scores .worse { color: #fbbf24; }
#methods { --font-mono: var(--font); font-variant-numeric: tabular-nums; }
#methods .first-column { position: sticky; left: 0; z-index: 1; background: inherit; }
#methods th.first-column { background: var(--background-fill-primary); }
@media (max-width: 640px) {
  #slider { height: 75vw !important; }
  #slider img { max-height: 75vw !important; }
}
"""
# A phone shows the result below the button; and gradio leaves these pictures without a text.
SCROLL = "() => { if (innerWidth < 700) document.querySelector('#slider').scrollIntoView({behavior: 'smooth'}) }"
SLIDER_TEXTS = """() => setTimeout(() => document.querySelectorAll('#slider img').forEach(
  (picture, i) => { picture.alt = ['Before: hazy', 'After: haze removed'][i] }), 300)"""
EXAMPLE_TEXTS = """() => setTimeout(() => document.querySelectorAll('#examples img').forEach(
  picture => { picture.alt = picture.src.split('/').pop().split('.')[0].replaceAll('-', ' ') }), 300)"""


def theme() -> gr.themes.Base:
    """Return the colours of the sky, with enough contrast, and the visitor's own fonts."""
    return gr.themes.Default(
        primary_hue="sky",
        secondary_hue="sky",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def model_choices() -> list[tuple[str, str]]:
    """List the models worth offering, each with a line of what it is, without loading one."""
    choices = []
    for name in dehaze.list_models():
        if name == "identity":  # returns its input: a floor for tables, of no use to visitors
            continue
        parameters, license_ = "no parameters", "apache-2.0"
        if hub.shipped(name):
            with safe_open(hub.shipped_folder(name) / hub.WEIGHTS_FILE, "np") as file:
                count = sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())  # noqa: SIM118
            parameters = f"{count / 1e6:.2g} M parameters"
            license_ = hub.read_card(hub.shipped_folder(name)).get("license", license_)
        choices.append((f"{name}: {INTRODUCTIONS.get(name, 'another model')}; {parameters}, {license_}", name))
    return choices


def build(results: Path = RESULTS) -> gr.Blocks:
    """Build the page; its leaderboard shows the records in the folder `results`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.HTML(INTRO, elem_id="intro", padding=False)
        with gr.Tabs():
            with gr.Tab("Remove haze"):
                dehaze_tab()
            with gr.Tab("Leaderboard"):
                view.leaderboard(results)
        gr.HTML(FOOTER, elem_id="footer", padding=False)
        page.load(None, js=EXAMPLE_TEXTS)
    return page.queue()


def dehaze_tab() -> None:
    choices = model_choices()
    result = gr.State(time_to_live=KEPT_SECONDS)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            photo = gr.Image(
                label="Your photograph", alt_text="Your photograph", type="filepath", image_mode=None, height=300,
                buttons=[], elem_id="photo",
            )  # fmt: skip
            model = gr.Radio(choices, value=choices[0][1], label="Model", elem_id="model")
            strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0 leaves all haze, 1 removes the most")
            button = gr.Button("Remove haze", variant="primary", size="lg")
            sources = example_sources()
            examples = gr.Examples(
                [str(SAMPLE / source["file"]) for source in sources], photo, label="Or try one of these",
                elem_id="examples", api_visibility="private",
            )  # fmt: skip
            gr.HTML(credit_list(sources), elem_id="credits", padding=False)
        with gr.Column(scale=3, min_width=320):
            slider = gr.ImageSlider(
                label="Before and after", format="png", type="filepath", interactive=False, height=480, max_height=480,
                buttons=["fullscreen"], elem_id="slider",
            )  # fmt: skip
            download = gr.DownloadButton("Download", interactive=False, elem_id="download")
            with gr.Row():
                with gr.Column(min_width=280):
                    density = gr.Image(
                        label="Haze density", alt_text="Map of the estimated haze density", format="png", height=260,
                        interactive=False, buttons=["fullscreen"], elem_id="density",
                    )  # fmt: skip
                    gr.HTML(legend(), elem_id="legend-box", padding=False)
                with gr.Column(min_width=280):
                    scores = gr.HTML(WAITING, elem_id="scores", padding=False)

    private = {"preprocess": False, "api_visibility": "private"}
    restoring = {"concurrency_id": "restoring", "concurrency_limit": 1}
    showing = {"fn": show, "inputs": [result, strength], "outputs": [slider, scores, download]}
    showing |= private | {"concurrency_limit": 4}
    for start in (button.click, examples.load_input_event.success):
        ran = start(run, [photo, model], [result, density], show_progress_on=slider, **private, **restoring)
        ran.success(**showing)
        start(None, js=SCROLL)
    strength.change(**showing)
    slider.change(None, js=SLIDER_TEXTS)

    # The same for programs, which want other things than the page shows.
    with gr.Row(visible=False):
        file = gr.File(label="photo")
        answers = [gr.File(label="restored"), gr.File(label="haze density"), gr.JSON(label="facts and scores")]
        called = gr.Button()
    called.click(remove_haze, [file, model, strength], answers, api_name="dehaze", preprocess=False, **restoring)


def example_sources() -> list[dict[str, str]]:
    """List the real hazy photographs of the sample set: file, title, author, licence, source."""
    with (SAMPLE / "sources.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["file"].startswith("real/")]


def credit_list(sources: list[dict[str, str]]) -> str:
    """Name the titles, authors and licences of the example photographs."""
    lines = []
    for source in sources:
        title, author, licence, url = (html.escape(source[key]) for key in ("title", "author", "licence", "source"))
        link = f"<a href='{url}' target='_blank' rel='noopener'>{title}</a>" if url else title
        lines.append(f"{link}, {author} ({licence.removeprefix('LicenseRef-')})")
    return f"<details><summary>Who took these photographs</summary><p>{'<br>'.join(lines)}</p></details>"


def legend() -> str:
    """Return a bar that explains the colours of the haze density."""
    colours = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colour_table()[::32])
    bar = f"<div style='background: linear-gradient(90deg, {colours})'></div>"
    return f"<div id='legend'>clear air{bar}thick haze</div>"


def launch(results: Path = RESULTS, **options: Any) -> gr.Blocks:
    """Build the page and serve it; `options` go to gradio's launch."""
    page = build(results)
    page.launch(theme=theme(), css=CSS, max_file_size="100mb", footer_links=["api"], run_history=False, **options)
    return page


if __name__ == "__main__":
    launch()
