"""The tab of a clip."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from dehaze.io.clip import MAX_SECONDS, MAX_SIDE, probe_clip
from dehaze.page.controls import LASTING, LOOKS, STOPPED, bar, choose_look, choose_strength, runs
from dehaze.page.inference import infer_clip
from dehaze.page.messages import chosen, chosen_strength, explained, uploaded
from dehaze.page.models import choose_model, chosen_model
from dehaze.page.visitors import Stop, probing
from dehaze.page.workshop import allowance, in_cache, seconds, turns, visitor

HINT = f"""
An MP4, MOV or WebM clip of at most {MAX_SECONDS} seconds, even one that this browser cannot play. The result is an
MP4 clip with the sound of yours, at most {MAX_SIDE} pixels wide or high. HDR clips are refused. The haze maps follow
the picture slowly, so that nothing flickers.
"""
stop_video = Stop()


def restore_video(upload: Any, model: Any, look: Any, strength: Any, request: gr.Request | None) -> Iterator[tuple]:
    """Restore a clip; give how far it has come, and at last the clip."""
    path = uploaded(upload, "clip")
    model, strength = chosen_model(model, steady=True), chosen_strength(strength)
    look = chosen(look, LOOKS.values(), "look")
    target, done, began, who = in_cache(f"{path.stem}_dehazed.mp4"), 0, time.perf_counter(), visitor(request)
    try:
        with explained("This clip cannot be restored"):
            with probing(who):
                clip = probe_clip(path)
            frame = clip.width * clip.height * min(1, MAX_SIDE / max(clip.width, clip.height)) ** 2 / 1e6
            # Maps are predicted on half a megapixel.
            work = clip.count * seconds(model, frame / 2)
            allowance.take(who, {"photographs": 1, "megapixels": clip.count * frame, "seconds of work": work})
            with closing(infer_clip(model, clip, target, look, strength, lambda: turns(who))) as frames:
                for done in frames:
                    if stop_video.asked(request):
                        yield STOPPED, gr.skip()
                        return
                    spent = time.perf_counter() - began
                    words = f"{done} of about {clip.count} frames, {spent:.0f} s"
                    yield bar(done, max(done, clip.count), words, running=True), gr.skip()
    finally:
        stop_video.end(request)
    words = " ".join((f"{done} frames restored in {time.perf_counter() - began:.0f} s.", *clip.notes))
    yield bar(done, done, words), target


def tab() -> None:
    """Add the tab to the Blocks that are being built."""
    with gr.Tab("Video"):
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                gr.Markdown(HINT)
                clip = gr.Video(label="Your clip", sources=["upload"], height=300, buttons=[], elem_id="clip")
                settings = [choose_model(steady=True), choose_look(), choose_strength()]
                with gr.Row():
                    button = gr.Button("Remove haze from the clip", variant="primary", size="lg", scale=3)
                    stop = gr.Button("Stop", size="lg", min_width=80)
            with gr.Column(scale=3, min_width=320):
                state = gr.HTML("<p>Progress appears here.</p>", elem_classes="scores", elem_id="frames", padding=False)
                restored = gr.Video(
                    label="Restored", interactive=False, height=480, buttons=["download"], elem_id="restored-clip"
                )
        run, shown = runs(button, stop, stop_video, state), [state, restored]
        run(restore_video, [clip, *settings], shown, show_progress="minimal", show_progress_on=state, **LASTING)
