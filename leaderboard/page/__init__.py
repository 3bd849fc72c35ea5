"""The tabs of the leaderboard: the board, its explorer, the form for submissions."""

from pathlib import Path

CSS = Path(__file__).with_name("page.css")
