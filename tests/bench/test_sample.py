import csv

import numpy as np
from PIL import Image

from bench import datasets
from bench.sample.render import FOLDER, parameters, render

FREE = ("CC0-1.0", "CC-BY-", "LicenseRef-Public-Domain")


def test_every_hazy_image_is_what_its_parameters_render():
    for row in parameters():
        with Image.open(FOLDER / "hazy" / f"{row['name']}.jpg") as image:
            shipped = np.asarray(image).astype(float)
        assert np.abs(shipped - render(row)).mean() < 1.5, row["name"]  # JPEG quality 95


def test_the_set_has_its_pairs_and_real_photographs():
    samples = datasets.load("sample").samples
    assert sum(sample.clear is not None for sample in samples) == len(parameters()) >= 6
    assert sum(sample.clear is None for sample in samples) >= 4


def test_every_photograph_has_a_source_and_a_free_licence():
    with (FOLDER / "sources.csv").open(newline="") as file:
        sources = {row["file"]: row for row in csv.DictReader(file)}
    photographs = {
        f"{path.parent.name}/{path.name}" for folder in ("clear", "real") for path in (FOLDER / folder).iterdir()
    }
    assert photographs == set(sources)
    for row in sources.values():
        assert row["author"] and row["package"] and row["path"]
        assert row["licence"].startswith(FREE)
