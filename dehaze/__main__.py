"""Run `python -m dehaze` and the command `dehaze`."""

from dehaze.cli import app
from dehaze.memory import keep_freed_memory


def main() -> None:
    keep_freed_memory()
    app(prog_name="python -m dehaze")


if __name__ == "__main__":
    main()
