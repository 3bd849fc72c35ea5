"""The page as programs use it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradio.mcp import GradioMCPServer
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
import dehaze
from bench import metrics
from dehaze.io.photo import read_photo
from dehaze.page import workshop
from dehaze.page.visitors import Allowance
from tests.app.tools import SIZE, connect

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("model", "strength"), [("api", 1), ("dcp", 0.5)])
def test_api_gives_the_pixels_of_the_model(client, hazy, tmp_path, model, strength):
    hazy.save(path := tmp_path / "temple.png")
    restored, density, facts = client.predict(handle_file(path), model, strength, api_name="/dehaze")
    expected = dehaze.load(model)(path, strength)

    assert restored.endswith("temple_dehazed.png")
    assert np.array_equal(np.asarray(Image.open(restored)), expected.pixels)
    assert np.abs(np.asarray(Image.open(density)) / 255 - expected.density).max() < 1 / 255
    assert (facts["model"], facts["strength"], facts["megapixels"]) == (model, strength, 0.0432)
    assert facts["seconds"] > 0
    for name in ("niqe", "fade_refit"):
        metric = metrics.get(name)
        assert facts["before"][name] == pytest.approx(float(metric(read_photo(hazy).tensor())))
        assert facts["after"][name] == pytest.approx(float(metric(expected.photo.tensor())))


def test_api_keeps_the_kind_of_file(client, hazy, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Old Box Camera"  # orientation: turn by 90°; model
    hazy.save(upright := tmp_path / "IMG 1.JPG", exif=exif)
    restored = Image.open(client.predict(handle_file(upright), "dcp", 1, api_name="/dehaze")[0])
    assert (restored.format, restored.size) == ("JPEG", SIZE[::-1])
    assert (restored.getexif()[0x0110], restored.getexif().get(0x0112, 1)) == ("Old Box Camera", 1)

    samples = np.asarray(hazy).astype(np.uint16) * 257
    deep = read_photo(samples).save(tmp_path / "deep.png")
    restored = read_photo(client.predict(handle_file(deep), "dcp", 1, api_name="/dehaze")[0])
    assert np.array_equal(restored.pixels, dehaze.load("dcp")(deep).pixels)
    assert restored.pixels.dtype == np.uint16


def test_api_explains_what_is_wrong(client, bad, hazy, tmp_path):
    hazy.save(good := tmp_path / "temple.png")
    calls = [(path, "api", 1, message) for path, message in bad.items()]
    calls += [(good, model, 1, "The model is one of api") for model in ("dpc", "org/name", "identity", "", None, 7, [])]
    wrong = (2, -1.1, "full", None, [1], {})
    calls += [(good, "dcp", strength, "The strength is a number between -1") for strength in wrong]
    for path, model, strength, message in calls:
        with pytest.raises(AppError) as error:
            client.predict(handle_file(path), model, strength, api_name="/dehaze")
        assert message in str(error.value)
        assert str(path.parent) not in str(error.value) and "/dehaze" not in str(error.value)
    assert client.predict(handle_file(good), "dcp", 1, api_name="/dehaze")  # the server lives


def test_many_callers_are_all_answered(client, hazy, tmp_path):
    """Each gets the result of the photograph that it sent."""
    paths = []
    for i in range(12):
        Image.blend(hazy, Image.new("RGB", SIZE, "white"), i / 24).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")

    def call(path):
        restored = client.predict(handle_file(path), "dcp", 1, api_name="/dehaze")[0]
        return np.asarray(Image.open(restored))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(call, paths))
    assert all(
        np.array_equal(answer, dehaze.load("dcp")(path).pixels) for path, answer in zip(paths, answers, strict=True)
    )


def test_a_caller_who_leaves_does_not_hold_up_the_rest(url, client, hazy, tmp_path):
    hazy.resize((1200, 900)).save(large := tmp_path / "large.png")
    hazy.save(small := tmp_path / "small.png")
    leaving = connect(url)
    job = leaving.submit(handle_file(large), "api", 1, api_name="/dehaze")
    leaving.close()
    job.cancel()
    assert client.predict(handle_file(small), "dcp", 1, api_name="/dehaze")


def test_each_visitor_has_a_limit(client, hazy, tmp_path, monkeypatch):
    hazy.save(path := tmp_path / "temple.png")
    monkeypatch.setattr(workshop, "allowance", Allowance({"megapixels": 0.05}, 600))
    client.predict(handle_file(path), "dcp", 1, api_name="/dehaze")
    with pytest.raises(AppError, match="Come back in 10 minutes"):
        client.predict(handle_file(path), "dcp", 1, api_name="/dehaze")


def test_api_is_one_documented_function(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == ["/dehaze"] and not api["unnamed_endpoints"]
    parameters = api["named_endpoints"]["/dehaze"]["parameters"]
    assert [parameter["parameter_name"] for parameter in parameters] == ["photo", "model", "strength"]
    assert set(parameters[1]["type"]["enum"]) == set(dehaze.list_models()) - {"identity"}


def test_agents_are_told_how_to_call_it(tmp_path):
    """The tool as gradio describes it over MCP; serving it needs one package more, describing it does not."""
    server = object.__new__(GradioMCPServer)
    server.blocks, server.tool_prefix = app.build(tmp_path), ""
    server.api_info = server.blocks.get_api_info()
    server.tool_to_endpoint = server.get_tool_to_endpoint()
    assert server.tool_to_endpoint == {"remove_haze": "/dehaze"}
    endpoint = server.get_block_fn_from_endpoint_name("/dehaze")
    description, parameters = server.get_fn_description(endpoint, "remove_haze")
    assert description.startswith("Remove haze from a photograph. Returns the restored photograph")
    schema, files = server.get_input_schema("remove_haze", parameters)
    assert (files, schema["required"]) == ([["photo"]], ["photo"])
    for name, kind, words in (
        ("photo", "string", "up to 60 megapixels"),
        ("model", "string", "name of the model"),
        ("strength", "number", "restores it in full"),
    ):
        told = schema["properties"].pop(name)
        assert told["type"] == kind and words in told["description"]
    assert not schema["properties"]


def test_no_network(url, client, connections):
    """Runs last: whatever was done above, this process talked to itself alone."""
    assert connections and set(connections) <= {"127.0.0.1", "localhost", "::1"}
