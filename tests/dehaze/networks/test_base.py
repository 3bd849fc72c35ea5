from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dehaze.networks import NETWORKS
from dehaze.networks.base import (
    EstimatesDensity,
    Network,
    PredictsMaps,
    RoutesPatches,
    TakesInstruction,
    change_fields,
)

ABILITIES = {
    "api": {EstimatesDensity, PredictsMaps, RoutesPatches},
    "cliphaze_t": {TakesInstruction},
    "dcp": {EstimatesDensity},
    "draco": set(),
    "identity": set(),
    "progressive:api": {RoutesPatches},
    "progressive:cliphaze_t": {TakesInstruction},
    "progressive:draco": set(),
}


@pytest.mark.parametrize("name", ABILITIES)
def test_classes_state_what_networks_can_do(name):
    network_class = NETWORKS.get(name)
    assert issubclass(network_class, Network)
    every = EstimatesDensity, PredictsMaps, RoutesPatches, TakesInstruction
    assert {ability for ability in every if issubclass(network_class, ability)} == ABILITIES[name]


def test_a_network_without_its_methods_cannot_be_made():
    for ability in Network, EstimatesDensity, PredictsMaps, TakesInstruction:
        with pytest.raises(TypeError, match="abstract"):
            ability()


class Shade(NamedTuple):
    grey: Tensor


class Darken(PredictsMaps[Shade]):
    """Subtract half of the mean of an image, and take the mean for the density."""

    maps_scale = 1

    def maps(self, hazy):
        return Shade(hazy.mean((1, 2, 3), keepdim=True))

    @staticmethod
    def apply_maps(hazy, maps):
        return hazy - maps.grey / 2, maps.grey.expand_as(hazy[:, :1])

    @staticmethod
    def change_maps(maps, change):
        return Shade(change.share * maps.grey - 2 * change.offset[:, :1])


def test_a_network_with_maps_restores_by_them():
    network, hazy = Darken(), torch.tensor([0.2, 0.6]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    restored, density = network.restore_with_density(hazy)
    torch.testing.assert_close(restored[0, 0, 0], torch.tensor([0.0, 0.4]))
    assert density.tolist() == [[[[pytest.approx(0.4)] * 2]]]
    assert torch.equal(network(hazy), restored.clamp(0, 1))
    assert torch.equal(network.stages(hazy)[-1], network(hazy))


def test_fields_are_changed_one_by_one():
    first, second = Shade(torch.tensor(1.0)), Shade(torch.tensor(2.0))
    assert change_fields(torch.add, first, second) == Shade(torch.tensor(3.0))
