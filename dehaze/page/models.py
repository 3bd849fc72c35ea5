"""The models on offer, each with a line that introduces it."""

import re
from functools import lru_cache
from typing import Any

import gradio as gr
from huggingface_hub import ModelCard

import dehaze
from dehaze import hub
from dehaze.networks import NETWORKS
from dehaze.networks.base import PredictsMaps
from dehaze.page import scores
from dehaze.page.messages import chosen


@lru_cache(2)
def model_choices(steady: bool = False) -> list[tuple[str, str]]:
    """List the models worth offering, each with its introduction, without loading one.

    With `steady`, only those that can keep a clip from flickering.
    """
    names = [name for name in dehaze.list_models() if not steady or issubclass(NETWORKS.get(name), PredictsMaps)]
    # identity returns its input: a floor for tables, of no use to visitors
    return [(introduction(name, scores.speeds().get(name)), name) for name in names if name != "identity"]


def chosen_model(value: Any, steady: bool = False) -> str:
    return chosen(value, [name for _, name in model_choices(steady)], "model")


def introduction(name: str, speed: float | None) -> str:
    """Say, in a line below its name, what a model is, by its card's title or its network's docstring, and takes."""
    file = hub.shipped_folder(name) / hub.CARD_FILE
    card = ModelCard.load(file) if file.is_file() else None
    facts = card.data.to_dict() if card else {}
    title = re.match(r"\s*# .+?: (.+)", card.text) if card else None
    what = title[1] if title else (NETWORKS.get(name).__doc__ or "").partition("\n")[0].partition(":")[0].rstrip(".")
    trained_on = ", ".join(facts.get("datasets", ()))
    takes = [facts.get("license", "apache-2.0"), f"trained on {trained_on}" if trained_on else "not trained"]
    if speed is not None:
        takes.append(f"{speed:.2f} s a megapixel on a CPU")
    return f"{name}\n{what.replace('`', '')}; {', '.join(takes)}"


def choose_model(steady: bool = False) -> gr.Radio:
    choices = model_choices(steady)
    return gr.Radio(choices, value=choices[0][1], label="Model", elem_classes="model")
