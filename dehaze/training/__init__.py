"""Training: recipes, data, checkpoints and the loop. `python -m dehaze.training --help` is the door."""
