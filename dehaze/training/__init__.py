"""Training: recipes, data, checkpoints and the loop. `python -m dehaze train --help` lists the options."""
