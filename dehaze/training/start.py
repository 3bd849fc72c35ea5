"""The network that a run starts with: new, or with the weights that ship, that lie in a folder or on the Hub."""

import fnmatch
from dataclasses import replace
from pathlib import Path

from torch import nn

from dehaze import hub
from dehaze.errors import DehazeError, WeightsError
from dehaze.networks.base import Configured, Network
from dehaze.networks.progressive import Progressive
from dehaze.training.recipe import Recipe


def make_network(recipe: Recipe, start: str | Path | None) -> nn.Module:
    """Make the network of a recipe, with initial weights if `start` is given, as `dehaze.load` takes them.

    In the progressive framework they may be those of the network that it wraps. Where the recipe gives no
    configuration, that of the weights is taken. Raises WeightsError.
    """
    network = recipe.network()
    if start is None:
        return network
    inner = recipe.model.removeprefix("progressive:")
    wraps = isinstance(network, Progressive)
    if start == "shipped" and wraps and not hub.shipped(recipe.model):
        return _wrap(recipe, network, inner, start)
    try:
        return _load(recipe, network, recipe.model, start)
    except WeightsError as error:
        if not wraps:
            raise
        try:
            return _wrap(recipe, network, inner, start)
        except WeightsError:
            raise error from None


def _load(recipe: Recipe, network: nn.Module, model: str, start: str | Path) -> nn.Module:
    found = hub.find_weights(model, start)
    if found.model not in (None, model):
        raise WeightsError(f"holds the model {found.model!r}, not {model!r}.", subject=found.file)
    if isinstance(recipe.network, type) and issubclass(recipe.network, Configured):
        return hub.build_network(model, recipe.network, found).train()
    hub.read_weights(network, found.file, model)
    return network


def _wrap(recipe: Recipe, network: nn.Module, model: str, start: str | Path) -> nn.Module:
    """Put the weights of the wrapped network into the framework."""
    assert isinstance(network, Progressive)
    backbone = _load(replace(recipe, network=type(network.backbone)), network.backbone, model, start)
    assert isinstance(backbone, Network)
    wrapped = type(network)(replace(network.config, backbone=backbone.config))
    wrapped.load_state_dict(network.state_dict() | {f"backbone.{k}": v for k, v in backbone.state_dict().items()})
    return wrapped


def freeze(network: nn.Module, patterns: tuple[str, ...]) -> None:
    """Exclude the parameters whose names match a pattern, such as `encoders.*`, from training. Raises DehazeError."""
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            firsts = ", ".join(dict.fromkeys(f"{name.partition('.')[0]}.*" for name in names))
            raise DehazeError(f"There is no parameter {pattern!r} to freeze.", f"Parts of the network are {firsts}.")
    for name, parameter in network.named_parameters():
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise DehazeError("Every parameter is frozen, so there is nothing to train.", "Freeze fewer.")
