"""The tabs of the leaderboard: the board, its explorer, the form for submissions."""

from pathlib import Path
from typing import Literal, TypedDict

CSS = Path(__file__).with_name("page.css")


class Listening(TypedDict, total=False):
    """How gradio treats an event; each field is an argument of its event methods."""

    api_visibility: Literal["private"]
    trigger_mode: Literal["always_last"]
    queue: bool


PRIVATE: Listening = {"api_visibility": "private"}  # for the page alone, and no part of its API
