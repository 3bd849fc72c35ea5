"""Average the weights of several runs: `python -m dehaze.training.average MODEL RUN/weights RUN/weights`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from dehaze.errors import WeightsError
from dehaze.hub import load_network, save_weights
from dehaze.terminal import reported_errors
from dehaze.training.cli import run_command


def average_weights(
    name: str, weights: Sequence[str | Path], output: Path, shares: Sequence[float] | None = None
) -> None:
    """Write the mean of several weights of the model `name` into the folder `output`.

    `weights` are given as to `dehaze.load`. `shares` are positive, one for each, in any unit; by default they are
    equal. The mean of runs with the same initial weights is often better than each run (model soups, Wortsman et al.
    2022). Raises WeightsError for weights that cannot be loaded or differ in configuration, ValueError for other
    shares.
    """
    shares = [1.0] * len(weights) if shares is None else shares
    if len(shares) != len(weights) or min(shares) <= 0:
        raise ValueError(f"{len(weights)} weights need as many positive shares, got {list(shares)}")
    networks = [load_network(name, source)[0] for source in weights]
    mean = networks[0]
    for network, source in zip(networks, weights, strict=True):
        if network.config != mean.config:
            raise WeightsError(
                f"has another configuration than {weights[0]}.",
                "Give weights of one configuration.",
                subject=source,
            )
    states = [network.state_dict() for network in networks]
    weighted = [(share / sum(shares), state) for share, state in zip(shares, states, strict=True)]
    mean.load_state_dict(
        {
            key: sum((part * state[key].double() for part, state in weighted), torch.zeros(())).to(states[0][key])
            for key in states[0]
        }
    )
    save_weights(mean, output)


def main(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    weights: Annotated[list[str], typer.Argument(help="Folders or files of weights, 'shipped', or Hub ids.")],
    output: Annotated[Path, typer.Option(help="Folder for the mean.", file_okay=False)],
    share: Annotated[
        list[float] | None,
        typer.Option(help="Weight of a run in the mean; once for each of WEIGHTS, in order. Default: equal."),
    ] = None,
) -> None:
    """Average the weights of several runs of a model."""
    with reported_errors():
        average_weights(model, weights, output, share)


if __name__ == "__main__":
    run_command(main, "dehaze.training.average")
