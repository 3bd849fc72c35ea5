import os
import shutil
import tempfile

import pytest

from bench.record import DatasetInfo, Failure, Method, Record, Speed, Summary

ABOUT = ("source", "parameters", "license", "paper", "trained_on", "look", "adjustments")
UNITS = {"psnr": "dB", "ciede2000": "ΔE00"}


@pytest.fixture
def make():
    """Make a record from means; `down` metrics and those without reference are known by name."""

    def build(method, means, *, dataset="sample", fingerprint="ab" * 32, protocol="native-v1", seconds=0.5, **more):
        def summary(name, mean):
            reference = name not in ("niqe", "fade", "fade_refit")
            count = more.get("counts", {}).get(name, 6 if reference else 10)
            return Summary(
                mean=mean,
                low=None if mean is None else mean - 1,
                high=None if mean is None else mean + 2,
                count=0 if mean is None else count,
                infinite=count if mean is None else 0,
                direction="up" if name in ("psnr", "ssim") else "down",
                unit=UNITS.get(name, ""),
                reference=reference,
            )

        speed = seconds and Speed(
            seconds_median=seconds, megapixels_median=0.48, device="cpu", dtype="float32", threads=2
        )
        return Record(
            method=Method(name=method, **{key: more[key] for key in ABOUT if key in more}),
            contaminated=more.get("contaminated", ()),
            dataset=DatasetInfo(name=dataset, samples=10, pairs=6, fingerprint=fingerprint),
            protocol=protocol,
            metrics={name: summary(name, mean) for name, mean in means.items()},
            failures=[Failure(id="x", stage="read", reason="damaged")] * more.get("failures", 0),
            speed=speed,
            environment={"cpu": "a processor"},
            created="2025-03-01T12:00:00Z",
        )

    return build


@pytest.fixture(scope="module")
def browser():
    """Start the system's Chromium; the wait is for machines that do much else at the same time.

    A page may be served already, with temporary files in a folder whose name is too long for Chromium's sockets.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        message = "Chromium is not installed; on Debian: apt-get install chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TMPDIR", raising=False)
        patch.setattr(tempfile, "tempdir", None)
        started = sync_playwright().start()
        browser = started.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", *quiet], timeout=120_000
        )
    yield browser
    browser.close()
    started.stop()


def pytest_collection_modifyitems(items):
    """Mark what needs Chromium, by the fixture that starts it."""
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker("browser")
