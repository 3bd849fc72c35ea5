"""Train a model: `python -m dehaze.training --recipe api --data FOLDER`."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from dehaze.errors import DehazeError
from dehaze.memory import keep_freed_memory
from dehaze.training.loop import train
from dehaze.training.recipe import get_recipe, recipe_names


def main() -> None:
    # argparse, so that training needs nothing beyond torch, accelerate and safetensors.
    parser = argparse.ArgumentParser(prog="python -m dehaze.training", description=__doc__)
    parser.add_argument("--recipe", required=True, choices=recipe_names())
    parser.add_argument("--data", required=True, type=Path, help="folder with images/NAME.jpg and depth/NAME.png")
    parser.add_argument("--pairs", type=Path, help="folder with hazy/ and clear/, for training on pairs, too")
    parser.add_argument("--real", type=Path, help="folder of real hazy photographs, for recipes that learn from them")
    parser.add_argument("--features", type=Path, help="safetensors of VGG16, for recipes that compare features")
    parser.add_argument("--start", type=Path, help="safetensors to begin with: the network's or its backbone's")
    parser.add_argument("--output", type=Path, help="checkpoint, log and weights (default: runs/RECIPE)")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--batch", type=int, help="of all processes together, instead of the recipe's")
    parser.add_argument("--crop", type=int, help="side of the crops in px, instead of the recipe's")
    parser.add_argument("--learning-rate", type=float, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--workers", type=int, default=1, help="rendering processes beside each training process")
    parser.add_argument("--precision", choices=["bf16", "fp16", "fp32"], default="bf16")
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    options = parser.parse_args()
    keep_freed_memory()
    instead = {key: getattr(options, key) for key in ("steps", "batch", "crop", "learning_rate", "seed")}
    given = {key: value for key, value in instead.items() if value is not None}
    try:
        train(
            replace(get_recipe(options.recipe), **given),
            options.data,
            options.output or Path("runs") / options.recipe,
            pairs=options.pairs,
            real=options.real,
            features=options.features,
            start=options.start,
            workers=options.workers,
            precision=options.precision,
            save_every=options.save_every,
        )
    except (DehazeError, FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last checkpoint")


if __name__ == "__main__":
    main()
