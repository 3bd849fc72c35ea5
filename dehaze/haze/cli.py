"""The command `python -m dehaze haze`."""

from pathlib import Path
from typing import Annotated

import typer

from dehaze.errors import OutputError
from dehaze.terminal import as_markup, console, reported_errors


def haze(
    photo: Annotated[Path, typer.Argument(help="A clear photograph.")],
    output: Annotated[Path, typer.Option(help="Folder for the hazy versions and their densities.", file_okay=False)],
    density: Annotated[
        float | None, typer.Option(min=0.01, max=0.99, help="Mean haze density. Default: that of --real, or random.")
    ] = None,
    nonuniform: Annotated[float, typer.Option(min=0, max=1, help="0 for uniform haze, 1 for the least uniform.")] = 0.5,
    count: Annotated[int, typer.Option(min=1, help="Number of versions.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same haze.")] = 0,
    real: Annotated[Path | None, typer.Option(help="A hazy photograph whose haze is transferred.")] = None,
    weights: Annotated[str, typer.Option(help="'shipped', a .safetensors file, or a Hub id org/name[@revision].")] = (
        "shipped"
    ),
) -> None:
    """Render haze onto a clear photograph: NAME_haze1.png and its density NAME_haze1_density.png (white: 1)."""
    import numpy as np
    import torch

    from dehaze.haze.generator import load_generator
    from dehaze.haze.photo import haze_versions
    from dehaze.io.photo import read_photo

    with reported_errors():
        clear = read_photo(photo)
        transferred = None if real is None else read_photo(real).tensor()
        generator = load_generator(weights)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot be made a folder: {error.strerror}.", "Choose another output.", subject=output
            ) from error
        versions = haze_versions(
            generator,
            clear.tensor(),
            torch.Generator().manual_seed(seed),
            count,
            density=density,
            nonuniform=nonuniform,
            real=transferred,
        )
        for i, version in enumerate(versions, 1):
            written = clear.with_tensor(version.hazy).save(output / f"{photo.stem}_haze{i}.png")
            map_ = version.density[0, 0].mul(255).round().byte().numpy()
            read_photo(np.ascontiguousarray(map_)).save(output / f"{photo.stem}_haze{i}_density.png")
            console.print(f"{as_markup(written)}  mean density {version.density.mean():.2f}")
