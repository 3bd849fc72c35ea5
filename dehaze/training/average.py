"""Average the weights of several runs: `python -m dehaze.training.average MODEL RUN/weights RUN/weights`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dehaze.errors import DehazeError, WeightsError
from dehaze.hub import load_network, save_weights


def average(name: str, weights: Sequence[str | Path], output: Path, shares: Sequence[float] | None = None) -> None:
    """Write into `output` the mean of several weights of the model `name`, each being what `dehaze.load` takes.

    `shares` are positive, one for each, in any unit; without them all count alike. Runs that began with the same
    weights lie in one basin, and their mean is often better than each (model soups, Wortsman et al. 2022). Raises
    WeightsError where some cannot be had or are of other configurations, ValueError where the shares do not fit.
    """
    shares = [1.0] * len(weights) if shares is None else shares
    if len(shares) != len(weights) or min(shares) <= 0:
        raise ValueError(f"{len(weights)} weights need as many positive shares, got {list(shares)}")
    networks = [load_network(name, source)[0] for source in weights]
    mean = networks[0]
    for network, source in zip(networks, weights, strict=True):
        if network.config != mean.config:
            raise WeightsError(f"{source} has another configuration than {weights[0]}; only like networks have a mean")
    states = [network.state_dict() for network in networks]
    weighted = [(share / sum(shares), state) for share, state in zip(shares, states, strict=True)]
    mean.load_state_dict(
        {key: sum(part * state[key].double() for part, state in weighted).to(states[0][key]) for key in states[0]}
    )
    save_weights(mean, output)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dehaze.training.average", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("weights", nargs="+", help='folders or files of weights, "shipped", or Hub ids')
    parser.add_argument("--shares", nargs="+", type=float, help="how much each counts; without, all count alike")
    parser.add_argument("--output", required=True, type=Path, help="folder for the weights")
    options = parser.parse_args()
    try:
        average(options.model, options.weights, options.output, options.shares)
    except (DehazeError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
