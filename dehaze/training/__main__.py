"""`python -m dehaze.training` is `python -m dehaze train`; launchers of several processes take it as a module."""

from dehaze.training.cli import run_command, train

if __name__ == "__main__":
    run_command(train, "dehaze.training")
