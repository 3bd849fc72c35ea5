"""`python -m dehaze`."""

from dehaze.cli import app

app(prog_name="python -m dehaze")
