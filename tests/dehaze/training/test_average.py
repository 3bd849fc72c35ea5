import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from dehaze.errors import WeightsError
from dehaze.hub import save_weights
from dehaze.networks.api.network import API, APIConfig
from dehaze.training.average import average_weights

SMALL = APIConfig(widths=(16, 16, 16), down_blocks=(1, 1, 1), up_blocks=(1, 1), experts=1)


def save(folder, seed, config=SMALL):
    torch.manual_seed(seed)
    network = API(config)
    network.threshold.fill_(seed)
    save_weights(network, folder)
    return network.state_dict()


def test_the_mean_is_of_every_tensor(tmp_path):
    states = [save(tmp_path / str(seed), seed) for seed in (0, 1, 5)]
    average_weights("api", [tmp_path / "0", tmp_path / "1", tmp_path / "5" / "model.safetensors"], tmp_path / "mean")
    mean = load_file(tmp_path / "mean" / "model.safetensors")
    assert mean["threshold"] == 2
    torch.testing.assert_close(mean, {key: sum(state[key] for state in states) / 3 for key in mean})
    assert (tmp_path / "mean" / "config.json").read_text() == (tmp_path / "0" / "config.json").read_text()


def test_what_has_a_larger_share_counts_for_more(tmp_path):
    states = [save(tmp_path / str(seed), seed) for seed in (0, 1)]
    average_weights("api", [tmp_path / "0", tmp_path / "1"], tmp_path / "mean", shares=[3, 1])
    mean = load_file(tmp_path / "mean" / "model.safetensors")
    torch.testing.assert_close(mean, {key: 0.75 * states[0][key] + 0.25 * states[1][key] for key in mean})
    for shares in ([1], [1, 0], [1, 1, 1]):
        with pytest.raises(ValueError, match="2 weights need as many positive shares"):
            average_weights("api", [tmp_path / "0", tmp_path / "1"], tmp_path / "mean", shares=shares)


def test_networks_of_other_configurations_have_no_mean(tmp_path):
    save(tmp_path / "a", 0)
    save(tmp_path / "b", 1, APIConfig(widths=(16, 16, 32), down_blocks=(1, 1, 1), up_blocks=(1, 1), experts=1))
    with pytest.raises(WeightsError, match=r"b has another configuration than .*a\. Give weights of one configuration"):
        average_weights("api", [tmp_path / "a", tmp_path / "b"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.mark.slow
def test_the_command_says_what_is_missing(tmp_path):
    command = [sys.executable, "-m", "dehaze.training.average", "api", tmp_path / "none", "--output", tmp_path / "mean"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and str(tmp_path / "none") in result.stderr


@pytest.mark.slow
def test_the_command_takes_one_share_for_each_of_the_weights(tmp_path):
    states = [save(tmp_path / str(seed), seed) for seed in (0, 1)]
    command = [sys.executable, "-m", "dehaze.training.average", "api", tmp_path / "0", tmp_path / "1"]
    command += ["--output", tmp_path / "mean", "--share", "3"]
    assert subprocess.run(command, capture_output=True).returncode == 2
    subprocess.run([*command, "--share", "1"], check=True)
    mean = load_file(tmp_path / "mean" / "model.safetensors")
    torch.testing.assert_close(mean, {key: 0.75 * states[0][key] + 0.25 * states[1][key] for key in mean})
