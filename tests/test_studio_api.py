"""What programs may call: `gradio_client`, curl and MCP."""

import asyncio
import base64
import contextlib
import io
import json
import math
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

import inr
from apps.cli.main import main
from apps.studio.api import NAMES, number_of, text_of, whole_of
from inr.errors import UsageError
from tests.conftest import ASSETS
from tests.studio_server import Server, shared

pytest.importorskip("gradio")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the client leaves sockets open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def server() -> Server:
    return shared()


@pytest.fixture(scope="module")
def client(server, tmp_path_factory) -> Client:
    folder = tmp_path_factory.mktemp("downloads")
    return Client(server.url, verbose=False, download_files=folder, analytics_enabled=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    import imageio.v3

    whole = imageio.v3.imread(ASSETS / "coffee.png")
    path = tmp_path_factory.mktemp("source") / "cup.png"
    imageio.v3.imwrite(path, whole[150:214, 200:296])
    return path


@pytest.fixture(scope="module")
def stored(picture, tmp_path_factory):
    fitted = inr.fit(inr.open(picture), "grid", steps=20, device="cpu")
    path = tmp_path_factory.mktemp("stored") / "cup.inr"
    path.write_bytes(inr.encode(fitted.field, fitted.signal))
    return path


def command(*argv) -> str:
    """What the command line says, in this process, which has torch already."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main([str(word) for word in argv]) == 0
    return said.getvalue()


def test_only_four_functions_are_public_and_they_are_described(server):
    info = httpx.get(f"{server.url}gradio_api/info").json()
    assert sorted(info["named_endpoints"]) == sorted(f"/{name}" for name in NAMES)
    assert info["unnamed_endpoints"] == {}
    config = httpx.get(f"{server.url}config").json()
    public = {d["api_name"] for d in config["dependencies"] if d["api_visibility"] == "public"}
    assert public == set(NAMES)
    for endpoint in info["named_endpoints"].values():
        assert endpoint["description"]
        file, *others = endpoint["parameters"]
        assert file["parameter_name"] == "file"
        assert not file["parameter_has_default"]
        assert all(one["parameter_has_default"] for one in others)
    names = [one["parameter_name"] for one in info["named_endpoints"]["/fit"]["parameters"]]
    assert names == ["file", "field", "seconds", "steps", "psnr", "seed"]


def test_fit_gives_the_file_that_the_command_line_gives(client, server, picture, tmp_path):
    path, facts = client.predict(
        handle_file(picture), field="grid", seconds=300, steps=20, seed=3, api_name="/fit"
    )
    own = tmp_path / "own.inr"
    command("fit", picture, "-o", own, "--field", "grid", "--steps", 20, "--seed", 3, "-q",
            "--device", "cpu", "--threads", 1)  # fmt: skip
    with Path(path).open("rb") as file:
        assert file.read() == own.read_bytes()
    assert facts["steps"] == 20
    assert facts["ended"] == "steps"
    assert facts["bytes"] == own.stat().st_size
    told = json.loads(command("info", own, "--json"))
    assert facts["psnr"] == pytest.approx(told["psnr"], abs=0.02)
    assert server.jobs() == []


def test_info_and_decode_say_what_the_command_line_says(client, server, stored, tmp_path):
    told = json.loads(command("info", stored, "--json"))
    told.pop("file")
    assert client.predict(handle_file(stored), api_name="/info") == told
    for given, options in (({}, []), ({"size": "37x20"}, ["--size", "37x20"])):
        path = client.predict(handle_file(stored), **given, api_name="/decode")
        own = tmp_path / "own.png"
        command("decode", stored, "-o", own, "-f", *options)
        with Path(path).open("rb") as file:
            assert file.read() == own.read_bytes()
    assert server.jobs() == []


@pytest.mark.slow
def test_compress_meets_its_target(client, server, picture):
    path, facts = client.predict(handle_file(picture), bytes=900, effort=1, api_name="/compress")
    with Path(path).open("rb") as file:
        data = file.read()
    assert len(data) == facts["bytes"] <= 900
    assert facts["reached"]
    decoded = inr.decode(data)
    truth = np.asarray(inr.open(picture).samples)
    error = np.mean((inr.render(decoded).astype(float) - truth) ** 2)
    assert facts["psnr"] == pytest.approx(10 * math.log10(255**2 / error), abs=0.01)
    assert server.jobs() == []


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("fit", {"seconds": 1e9}, "seconds is '1000000000.0'"),
        ("fit", {"steps": -1}, "steps is '-1'"),
        ("fit", {"field": "tangent"}, "tangent"),
        ("fit", {"field": "x" * 201}, "at most 200"),
        ("compress", {}, "0 targets"),
        ("compress", {"bytes": 100, "psnr": 30}, "2 targets"),
        ("compress", {"bpp": 1, "effort": 10}, "effort is '10'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(client, server, picture, name, given, told):
    with pytest.raises(AppError, match=told) as error:
        client.predict(handle_file(picture), **given, api_name=f"/{name}")
    assert "\n" not in str(error.value)
    assert server.jobs() == []


def test_a_picture_is_no_inr_file_and_the_other_way_round(client, picture, stored, server):
    for name in ("info", "decode"):
        with pytest.raises(AppError, match="^cup.png: is not an .inr file"):
            client.predict(handle_file(picture), api_name=f"/{name}")
    with pytest.raises(AppError, match="cup.inr"):
        client.predict(handle_file(stored), api_name="/fit")
    assert server.jobs() == []


def test_a_caller_that_goes_away_frees_the_device(client, server, picture):
    begin = time.monotonic()
    job = client.submit(handle_file(picture), field="siren", seconds=500, api_name="/fit")
    while not any((out[1] or {}).get("step") for out in job.outputs()):
        time.sleep(0.1)
        assert time.monotonic() - begin < 60
    job.cancel()
    end = time.monotonic()
    while server.jobs():
        time.sleep(0.1)
        assert time.monotonic() - end < 10


def test_curl_works_too(server, stored):
    with stored.open("rb") as file:
        answer = httpx.post(f"{server.url}gradio_api/upload", files={"files": file})
    (path,) = answer.json()
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    event = httpx.post(f"{server.url}gradio_api/call/info", json=body).json()["event_id"]
    text = httpx.get(f"{server.url}gradio_api/call/info/{event}", timeout=60).text
    assert "event: complete" in text
    (facts,) = json.loads(text.partition("data: ")[2])
    assert facts["field"] == "grid"


def test_the_functions_are_mcp_tools(server, picture):
    pytest.importorskip("mcp")
    tools, fitted, told, foreign = asyncio.run(_mcp(f"{server.url}gradio_api/mcp/", picture))
    assert {tool.name for tool in tools} == set(NAMES)
    assert all(len(tool.description) > 40 for tool in tools)
    fit = next(tool for tool in tools if tool.name == "fit")
    assert "siren" in fit.inputSchema["properties"]["field"]["description"]
    assert not fitted.isError
    file, facts = (part.text for part in fitted.content)
    assert file.startswith(f"{server.url}gradio_api/file=")
    assert "'steps': 3" in facts
    assert not told.isError
    assert "'field': 'grid'" in told.content[0].text
    assert foreign.isError
    assert "nothing is fetched" in foreign.content[0].text


async def _mcp(url, picture):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    data = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    async with (
        streamablehttp_client(url) as (reader, writer, _),
        ClientSession(reader, writer) as session,
    ):
        await session.initialize()
        tools = (await session.list_tools()).tools
        fitted = await session.call_tool("fit", {"file": data, "steps": 3, "seconds": 100})
        told = await session.call_tool("info", {"file": fitted.content[0].text})
        foreign = await session.call_tool("info", {"file": "http://example.org/a.inr"})
    return tools, fitted, told, foreign


# ---------------------------------------------------------------------- what was sent


def test_numbers_of_callers():
    assert number_of("x", 0, 1, 2) is None
    assert number_of("x", None, 1, 2) is None
    assert number_of("x", 1.5, 1, 2) == 1.5
    assert whole_of("x", 2.0, 1, 2) == 2
    for bad in (math.nan, math.inf, True, "1", [1], {"a": 1}, 3, -1, 0.5):
        with pytest.raises(UsageError, match="^x is"):
            number_of("x", bad, 1, 2)
    with pytest.raises(UsageError, match="whole number"):
        whole_of("x", 1.5, 1, 2)


def test_texts_of_callers():
    assert text_of("x", " siren ") == "siren"
    assert text_of("x", "") is None
    for bad in ("a\x1b[2J", "a\nb", "y" * 201, 7, ["siren"]):
        with pytest.raises(UsageError, match="^x: give a text"):
            text_of("x", bad)
