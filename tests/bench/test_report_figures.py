import pytest
from typer.testing import CliRunner

from bench.errors import DrawingError, UnknownMetricError
from bench.report import figures, table
from leaderboard import cli


@pytest.fixture
def speeds(make):
    return [
        make("fast", {"psnr": 10.0, "ciede2000": 20.0}, seconds=0.01),
        make("slow", {"psnr": 20.0, "ciede2000": 10.0}, seconds=1.0),
        make("beaten", {"psnr": 9.0, "ciede2000": 21.0}, seconds=0.5),
        make("equal", {"psnr": 20.0, "ciede2000": 10.0}, seconds=2.0),
        make("untimed", {"psnr": 15.0, "ciede2000": 15.0}, seconds=None),
    ]


@pytest.mark.parametrize("metric", ["psnr", "ciede2000"])
def test_pareto_front(speeds, metric):
    [found] = table.tables(speeds)
    [column] = [column for column in found.columns if column.name == metric]
    timed, untimed = figures.points(found, column)
    assert untimed == ["untimed"]
    assert [point.method for point in figures.pareto_front(timed, column)] == ["fast", "slow"]


@pytest.mark.parametrize(("metric", "inverted"), [(None, False), ("ciede2000", True)])
def test_every_timed_method_is_drawn_and_better_is_up(speeds, metric, inverted):
    [found] = table.tables(speeds)
    drawn = figures.quality_against_speed(found, metric)
    [axes] = drawn.axes
    assert {text.get_text() for text in axes.texts} == {"fast", "slow", "beaten", "equal"}
    assert "without a time: untimed" in axes.get_xlabel()
    assert axes.yaxis_inverted() == inverted
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_points_at_one_place_have_labels_beside_each_other(make):
    [found] = table.tables([make(f"method {number}", {"psnr": 10.0}, seconds=0.5) for number in range(4)])
    boxes = [text.get_window_extent() for text in figures.quality_against_speed(found).axes[0].texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_nothing_to_draw(make):
    [found] = table.tables([make("a", {"psnr": 10.0}, seconds=None)])
    with pytest.raises(DrawingError, match="No method has both seconds and psnr"):
        figures.quality_against_speed(found)
    with pytest.raises(UnknownMetricError, match=r"has no lpips\. It has psnr"):
        figures.quality_against_speed(found, "lpips")


def test_the_command_writes_a_file(make, speeds, tmp_path):
    for record in speeds:
        record.write(tmp_path)
    what = ["figure", "--results", str(tmp_path), "--dataset", "sample"]
    result = CliRunner().invoke(cli.app, [*what, "--output", str(tmp_path / "plot.png")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    result = CliRunner().invoke(cli.app, [*what, "--output", str(tmp_path / "plot.xyz")])
    assert result.exit_code == 1
    assert "plot.xyz cannot be written: Format 'xyz' is not supported" in result.stderr
    make("a", {"psnr": 1.0}, protocol="long800-v1").write(tmp_path)
    result = CliRunner().invoke(cli.app, [*what, "--output", str(tmp_path / "plot.png")])
    assert result.exit_code == 2
    assert "Choose one with --protocol" in result.stderr
