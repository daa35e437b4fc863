"""The studio's components: what the page carries, and what they do in a browser."""

import base64
import io
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from apps.studio import components
from apps.view import pieces
from apps.view.page import WIDGETS

gr = pytest.importorskip("gradio")

# ------------------------------------------------------------------------- without a browser


def test_the_head_is_one_script_with_all_widgets():
    head = components.head()
    assert head.lower().count("<script") == head.lower().count("</script") == 1
    for name in WIDGETS:
        assert f"widgets.{name} = " in head
    for name in ("stage", "form", "paint", "chart", "deep"):
        assert f"studio.{name} = " in head
    assert not re.search(r"https?://", head)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_the_scripts_fit_into_one_function(tmp_path):
    path = tmp_path / "head.js"
    path.write_text(components.head().removeprefix("<script>").removesuffix("</script>\n"))
    found = subprocess.run(["node", "--check", path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_no_style_reaches_beyond_the_components():
    flat = re.sub(r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*)\s*\}", r"\1", components.css())
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", flat)
    assert len(rules) > 60
    for selectors in rules:
        for one in selectors.split(","):
            assert re.match(r"(\.dark )?\.inr\b", one.strip()), one


def test_a_label_is_text():
    label = '<b>"a" & ${1} {{value}} `x` \\n'
    template = components.stage("s", label).html_template
    assert not set("`${}\\") & set(template)
    assert "<b>" not in template
    shown = re.search(r'aria-label="([^"]*)"', template)
    import html

    assert shown
    assert html.unescape(shown[1]) == label


def test_a_chart_s_points_come_back():
    value = components.charted({"a": [[1, 0.5, None, 2.0], [2, 1.5, 30.25, 1.0]], "none": []})
    one, none = value["series"]
    found = np.frombuffer(base64.b64decode(one["packed"]), "<f4").reshape(-1, 4)
    assert np.array_equal(found, [[1, 0.5, np.nan, 2], [2, 1.5, 30.25, 1]], equal_nan=True)
    assert none == {"name": "none", "packed": ""}
    json.dumps(value, allow_nan=False)


# ------------------------------------------------------------------------------- in a browser

HARNESS = """
window.given = []; window.asked = [];
window.mount = (name, value, answer) => {
  window.props = { value };
  const watch = (_, act) => { window.fire = act; };
  const reply = (request) => {
    window.asked.push(request);
    return new Promise((go) => setTimeout(() => go(answer(request)), 150));
  };
  const server = { inr_pixels: reply, inr_frame: reply };
  const trigger = (kind) => window.given.push([kind, structuredClone(window.props.value)]);
  window.inrStudio[name]({ element: document.body, props: window.props, watch, trigger, server });
};
window.set = (value) => { window.props.value = value; window.fire(); };
"""


async def nothing(_: dict) -> dict:
    return {}


class Mounted:
    """One component in a page of its own, and what Gradio would be told."""

    def __init__(self, browser, name: str, value: object, answer: str = "() => ({})") -> None:
        make = getattr(components, name)
        made = make("x", "It", nothing) if name == "deep" else make("x", "It")
        self.page = browser.new_page(viewport={"width": 900, "height": 800})
        self.complaints: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.set_content(
            f"<!doctype html><html><head>{components.head()}<script>{HARNESS}</script>"
            f"<style>{components.css()}</style></head>"
            f"<body>{made.html_template}<button>Go</button></body></html>"
        )
        self.page.evaluate(f"(value) => mount('{name}', value, {answer})", value)
        self.page.wait_for_selector(".inr[data-ready]")

    def set(self, value: object) -> None:
        self.page.evaluate("(value) => set(value)", value)

    def look(self, canvas: int = 0) -> str:
        return self.page.evaluate(f"document.querySelectorAll('canvas')[{canvas}].toDataURL()")

    def until_looks(self, wanted: str, look: str, canvas: int = 0) -> None:
        """Wait until a canvas is `===` or `!==` a look: a machine may be slow to draw."""
        this = f"document.querySelectorAll('canvas')[{canvas}].toDataURL()"
        self.page.wait_for_function(f"(look) => {this} {wanted} look", arg=look)

    @property
    def value(self) -> dict:
        return self.page.evaluate("props.value")

    @property
    def given(self) -> list:
        return self.page.evaluate("given")


@pytest.fixture
def mounted(browser) -> Iterator:
    made: list[Mounted] = []

    def mount(*args, **kwargs) -> Mounted:
        made.append(Mounted(browser, *args, **kwargs))
        return made[-1]

    yield mount
    for one in made:
        one.page.close()
        assert one.complaints == []


def uri(samples: np.ndarray) -> str:
    data = io.BytesIO()
    PIL.Image.fromarray(samples).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def picture(k: int, side: int = 32) -> str:
    return uri(np.random.default_rng(k).integers(0, 256, (side, side), np.uint8))


def tone(k: int) -> str:
    import wave

    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.rint(9000 * np.sin(0.01 * (k + 5) * np.arange(2000))).astype("<i2"))
    return "data:audio/wav;base64," + base64.b64encode(data.getvalue()).decode()


def section(widget: str, k: int) -> dict:
    """A section whose numbers depend on `k`."""
    rng = np.random.default_rng(k)
    bar = {"map": "viridis", "low": "0", "high": str(k)}
    ball = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9 + k]], np.uint16) * 6000
    faces = np.array([0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3], np.uint32)
    numbers = pieces.deflated(rng.normal(size=60).astype(np.float32))
    data = {
        "panes": {
            "size": [32, 32],
            "compare": [0, 1],
            "panes": [
                {"name": "target", "label": "target", "frames": [picture(0)]},
                {"name": "fit", "label": f"fit {k}", "frames": [picture(k)], "bar": bar},
            ],
        },
        "plot": {
            "label": "power",
            "x": [0, 1, "Nyquist"],
            "y": "dB",
            "series": [{"name": "fit", "values": numbers}],
        },
        "sound": {
            "rate": 8000,
            "start": 0,
            "tracks": [{"name": "fit", "src": tone(k), "channels": 1, "colour": 1}],
            "spectrograms": [{"label": "spectrogram", "picture": picture(k), "bar": bar}],
        },
        "slices": {
            "shape": [4, 5, 6],
            "spacing": [1, 1, 1],
            "names": ["z", "y", "x"],
            "planes": ["a", "b", "c"],
            "window": [0, 9],
            "signals": [pieces.lattice("fit", rng.normal(size=(4, 5, 6, 1)), (-3, 3), "grey")],
        },
        "mesh": {
            "focus": [[0, 0, 0], [1, 1, 1]],
            "low": [0, 0, 0],
            "high": [1, 1, 1],
            "meshes": [
                {
                    "name": "fit",
                    "positions": pieces.deflated(ball.ravel()),
                    "faces": pieces.deflated(faces),
                }
            ],
        },
        "curves": {
            "x": "bytes",
            "measures": ["PSNR"],
            "codecs": ["inr"],
            "views": [
                {
                    "name": "all",
                    "curves": [
                        {"codec": "inr", "points": [[10.0 * i, [i + k], "x"] for i in (1, 2, 3)]}
                    ],
                }
            ],
        },
        "table": {"columns": ["name", "figure"], "rows": [["a", str(k)], ["b", "2"]]},
    }[widget]
    return {"title": widget, "widget": widget, "data": data, "notes": [f"<b>step {k}</b>"]}


def frame(k: int, widgets: list[str]) -> dict:
    return {"id": f"f{k}", "sections": [section(widget, k) for widget in widgets]}


@pytest.mark.slow
@pytest.mark.parametrize("widget", WIDGETS)
def test_a_widget_takes_new_data_in_place(mounted, widget):
    it = mounted("stage", None)
    assert it.page.get_by_text("Nothing is shown yet.").is_visible()
    it.set(frame(1, [widget]))
    it.page.wait_for_selector(".inr[data-shown=f1]")
    drawn = f"document.querySelectorAll('figure canvas')[{int(widget == 'panes')}].toDataURL()"
    told = f"document.querySelector('td')?.textContent ?? {drawn}"
    plain = "document.createElement('canvas').toDataURL()"
    it.page.wait_for_function(f"{told} !== {plain}")
    before = it.page.evaluate(told)
    it.page.evaluate("() => { window.kept = document.querySelector('canvas, table'); }")
    assert it.page.locator(".note").inner_text() == "<b>step 1</b>"
    it.set(frame(7, [widget]))
    it.page.wait_for_selector(".inr[data-shown=f7]")
    it.page.wait_for_function(f"(before) => {told} !== before", arg=before)
    assert it.page.evaluate("kept.isConnected")
    assert it.page.locator(".note").inner_text() == "<b>step 7</b>"
    assert it.page.locator("[role=alert]:visible").count() == 0
    it.set(None)
    it.page.wait_for_selector("canvas, table", state="detached")


@pytest.mark.slow
def test_zoom_and_divider_stay_when_a_frame_comes(mounted):
    it = mounted("stage", frame(1, ["panes"]))
    it.page.get_by_role("button", name="Before / after").click()
    it.page.get_by_label("divider").fill("0.25")
    canvas = it.page.get_by_label("before and after")
    which = it.page.evaluate(
        "[...document.querySelectorAll('canvas')].findIndex((c) => c.clientWidth)"
    )
    blank = it.page.evaluate("document.createElement('canvas').toDataURL()")
    it.until_looks("!==", blank, which)
    canvas.focus()
    it.page.keyboard.press("+")
    it.page.keyboard.press("0")
    it.page.wait_for_timeout(300)
    whole = it.look(which)
    for _ in range(4):
        it.page.keyboard.press("+")
    it.until_looks("!==", whole, which)
    it.page.wait_for_timeout(300)
    zoomed = it.look(which)
    it.set(frame(2, ["panes"]))
    it.page.wait_for_selector(".inr[data-shown=f2]")
    it.until_looks("!==", zoomed, which)
    assert it.page.get_by_label("divider").input_value() == "0.25"
    it.set(frame(1, ["panes"]))
    it.page.wait_for_selector(".inr[data-shown=f1]")
    it.until_looks("===", zoomed, which)


@pytest.mark.slow
def test_canvases_turn_dark_with_the_page(mounted):
    it = mounted("stage", frame(1, ["plot"]))
    it.page.wait_for_timeout(300)
    light = it.look()
    it.page.evaluate("document.body.classList.add('dark')")
    it.until_looks("!==", light)
    it.page.evaluate("document.body.classList.remove('dark')")
    it.until_looks("===", light)


@pytest.mark.slow
def test_another_structure_is_built_anew_and_an_error_told(mounted):
    it = mounted("stage", frame(1, ["panes", "plot"]))
    changed = frame(2, ["panes", "plot"])
    changed["sections"][0]["data"]["size"] = [64, 32]
    it.page.evaluate("() => { window.kept = document.querySelector('canvas'); }")
    it.set(changed)
    it.page.wait_for_selector(".inr[data-shown=f2]")
    assert not it.page.evaluate("kept.isConnected")
    broken = frame(3, ["plot"])
    broken["sections"][0]["data"]["series"][0]["values"]["data"] = "AAAA"
    it.set(broken)
    it.page.wait_for_selector(".inr[data-shown=f3]")
    assert "Not shown" in it.page.locator("section [role=alert]").inner_text()
    it.set(frame(4, ["plot"]))
    it.page.wait_for_selector(".inr[data-shown=f4]")
    assert it.page.locator("[role=alert]:visible").count() == 0
    assert it.page.locator("canvas").count() == 1


@pytest.mark.slow
def test_frames_that_are_asked_for(mounted):
    first = json.dumps(frame(1, ["panes"])["sections"])
    answer = f"(ask) => ask.k === 9 ? {{error: 'no such frame'}} : {{sections: {first}}}"
    it = mounted("stage", None, answer=answer)
    it.page.evaluate("() => { for (let k = 0; k < 5; k++) set({ id: `f${k}`, ask: { k } }); }")
    it.page.wait_for_selector(".inr[data-shown=f4]")
    assert it.page.evaluate("asked") == [{"k": 0}, {"k": 4}]  # never one that is late already
    it.set({"id": "f9", "ask": {"k": 9}})
    it.page.get_by_text("no such frame").wait_for()
    assert it.page.locator("canvas").count() == 3
    it.set({"id": "f1", "ask": {"k": 1}})
    it.page.wait_for_selector(".inr[data-shown=f1]")
    assert it.page.get_by_text("no such frame").count() == 0
    assert it.page.locator("[role=alert]:visible").count() == 0


def entry(name: str, kind: str, default: object = None, **more: object) -> dict:
    return {"name": name, "label": name, "help": f"of {name}", "kind": kind} | {
        "default": default,
        **more,
    }


ENTRIES = [
    entry("width", "int", 64, min=1, max=512),
    entry("omega", "float", 30.0),
    entry("bias", "bool", True),
    entry("gate", "bool"),
    entry("wave", "choice", "sine", choices=["sine", "relu"]),
    entry("levels", "numbers", [4, 8], group="Grid"),
    entry("note", "text", "", group="Grid"),
]


@pytest.mark.slow
def test_a_form_gives_what_differs_from_the_defaults(mounted):
    it = mounted("form", {"entries": ENTRIES, "given": {"omega": 5}, "errors": {"note": "odd"}})
    page = it.page
    assert page.get_by_label("omega").input_value() == "5"
    assert page.get_by_label("width").get_attribute("placeholder") == "64"
    assert page.get_by_label("note").get_attribute("aria-invalid") == "true"
    assert page.get_by_text("odd").is_visible()
    page.get_by_label("width").fill("128")
    page.get_by_label("bias").uncheck()
    page.get_by_label("gate").select_option("no")
    page.get_by_label("wave").select_option("relu")
    page.get_by_label("levels").fill("[1, 2.5 3e1]")
    page.get_by_label("omega").fill("")
    page.get_by_role("button", name="Go").click()
    assert it.value["given"] == {
        "width": 128,
        "bias": False,
        "gate": False,
        "wave": "relu",
        "levels": [1, 2.5, 30],
    }
    assert it.value["errors"] == {}
    assert {kind for kind, _ in it.given} == {"input"}
    page.get_by_label("bias").check()
    page.get_by_label("wave").select_option("sine")
    page.get_by_label("gate").select_option("")
    assert it.value["given"] == {"width": 128, "levels": [1, 2.5, 30]}


@pytest.mark.slow
def test_a_form_tells_what_cannot_be_read(mounted):
    it = mounted("form", {"entries": ENTRIES, "given": {}, "errors": {}})
    width = it.page.get_by_label("width")
    for typed, told, value in (
        ("12x", "not a number", "12x"),
        ("1.5", "not a whole number", "1.5"),
        ("0", "at least 1", 0),
        ("1e9", "at most", 1e9),
        ("0x10", "not a number", "0x10"),
    ):
        width.fill(typed)
        width.blur()
        assert told in it.value["errors"]["width"]
        assert it.value["given"]["width"] == value
        assert width.get_attribute("aria-invalid") == "true"
        described = width.get_attribute("aria-describedby").split()
        texts = [it.page.locator(f"#{name}").inner_text() for name in described]
        assert any("of width" in text for text in texts)
        assert any(told in text for text in texts)
    width.fill("12")
    width.press("Enter")
    assert (it.value["given"], it.value["errors"]) == ({"width": 12}, {})


@pytest.mark.slow
def test_what_is_typed_is_given_before_a_click_elsewhere(mounted):
    it = mounted("form", {"entries": ENTRIES, "given": {}, "errors": {}})
    it.page.evaluate(
        "() => document.querySelector('body > button').addEventListener('click', () => {"
        " window.clicked = JSON.parse(JSON.stringify(props.value.given)); })"
    )
    it.page.get_by_label("omega").fill("7.25")
    it.page.get_by_role("button", name="Go").click()
    assert it.page.evaluate("clicked") == {"omega": 7.25}


@pytest.mark.slow
def test_a_form_is_changed_from_python(mounted):
    it = mounted("form", {"entries": ENTRIES, "given": {"omega": 5}, "errors": {}})
    it.set({"entries": ENTRIES[:2], "given": {"width": 3}, "errors": {"omega": "no"}})
    assert it.page.locator(".inr-entry").count() == 2
    assert it.page.get_by_label("width").input_value() == "3"
    assert it.page.get_by_label("omega").input_value() == ""
    assert it.page.get_by_text("no", exact=True).is_visible()
    assert it.given == []
    it.set({"entries": [], "given": {}, "errors": {}})
    assert it.page.get_by_text("There is nothing to set.").is_visible()


def mask_of(it: Mounted) -> np.ndarray:
    made = PIL.Image.open(io.BytesIO(base64.b64decode(it.value["mask"].partition(",")[2])))
    assert made.mode == "1"
    return np.asarray(made)


@pytest.mark.slow
def test_a_mask_is_painted(mounted):
    value = {"id": "a", "picture": picture(1), "size": [100, 203], "mask": None}
    it = mounted("paint", value)
    box = it.page.locator("canvas").bounding_box()
    it.page.get_by_label("brush size").fill("0.1")
    it.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    it.page.mouse.down()
    it.page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2, steps=3)
    it.page.mouse.up()
    known = mask_of(it)
    assert known.shape == (100, 203)
    unknown = np.argwhere(~known)
    assert unknown.min(0) == pytest.approx([40, 40.6], abs=2)
    assert unknown.max(0) == pytest.approx([60, 162], abs=2)
    assert not known[50, 60:150].any()
    [(kind, given)] = it.given
    assert (kind, given["mask"]) == ("input", it.value["mask"])
    it.page.get_by_role("button", name="Invert").click()
    assert np.array_equal(mask_of(it), ~known)
    it.page.get_by_role("button", name="Clear").click()
    assert it.value["mask"] is None
    # the mask of a size that no row of bytes fits, given by Python
    again = np.random.default_rng(0).integers(0, 2, (100, 203)).astype(bool)
    it.set({**value, "mask": uri(again)})
    share = f"{100 * (~again).mean():.4g} % of the picture is unknown"
    it.page.get_by_text(share).wait_for()
    it.page.get_by_role("button", name="Invert").click()
    assert np.array_equal(mask_of(it), ~again)


@pytest.mark.slow
def test_a_mask_is_painted_with_keys_and_erased(mounted):
    it = mounted("paint", {"id": "a", "picture": picture(1), "size": [64, 64], "mask": None})
    it.page.locator("canvas").focus()
    it.page.keyboard.down(" ")
    for _ in range(5):
        it.page.keyboard.press("ArrowRight")
    it.page.keyboard.up(" ")
    known = mask_of(it)
    assert not known[32, 32:36].any()
    assert 0.9 < known.mean() < 1
    it.page.get_by_role("button", name="Eraser").click()
    it.page.get_by_label("brush size").fill("0.3")
    it.page.locator("canvas").focus()
    it.page.keyboard.press(" ")
    assert it.value["mask"] is None
    it.set({"id": "b", "picture": picture(2), "size": [10, 20], "mask": None})
    it.page.get_by_role("button", name="Invert").click()
    assert mask_of(it).shape == (10, 20)


@pytest.mark.slow
def test_a_chart_tells_the_last_figures_and_follows(mounted):
    points = [[10 * i, 0.1 * i, 20 + i, 1 / (i + 1)] for i in range(20)]
    it = mounted("chart", components.charted({"camera": points, "other": points[:5]}))
    latest = it.page.locator("output").last
    assert "camera: step 190, 1.9 s, PSNR 39.00 dB, loss 0.05" in latest.inner_text()
    it.until_looks("!==", it.page.evaluate("document.createElement('canvas').toDataURL()"))
    looks = [it.look()]

    def changed() -> None:
        it.until_looks("!==", looks[-1])
        it.page.wait_for_timeout(200)
        looks.append(it.look())

    for name in ("Loss", "Steps"):
        it.page.get_by_role("button", name=name).click()
        changed()
    it.page.get_by_label("logarithmic").check()
    changed()
    it.page.get_by_label("smoothing").fill("0.9")
    changed()
    it.page.get_by_label("other").uncheck()
    changed()
    more = [*points, *([10 * i, 0.1 * i, 45, 0.01] for i in range(20, 40))]
    it.set({"series": [{"name": "camera", "points": more}, {"name": "other", "points": []}]})
    changed()
    assert "camera: step 390" in latest.inner_text()
    box = it.page.locator("canvas").bounding_box()
    it.page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 40)
    told = it.page.locator("output").nth(1)
    assert "camera: step 390" in told.inner_text()
    assert "other" not in told.inner_text()


@pytest.mark.slow
def test_a_closer_look_is_asked_for_and_told(mounted):
    value = {"id": "a", "token": "t", "size": [32, 48], "picture": picture(1), "fit": True}
    answer = f"(r) => r.crop[3] < 1 ? {{error: 'too close'}} : {{picture: '{picture(5)}'}}"
    it = mounted("deep", value, answer=answer)
    it.page.wait_for_function("props.value.crop")
    assert it.value["crop"] == [0, 0, 32, 48]
    canvas = it.page.locator("canvas")
    canvas.focus()
    for _ in range(4):
        it.page.keyboard.press("+")
    it.page.wait_for_function("props.value.crop[3] < 10")
    asked = it.page.evaluate("asked")
    assert len(asked) == 2  # one for all the keys
    assert asked[-1]["token"] == "t"
    y, x, h, w = asked[-1]["crop"]
    assert w == pytest.approx(48 / 1.5**4)
    assert [y + h / 2, x + w / 2] == pytest.approx([16, 24])
    assert asked[-1]["size"][1] == canvas.evaluate("(c) => c.width")
    assert "5.063 times" in it.page.locator("output").inner_text()
    # what comes for the same field keeps the place
    it.set(value | {"fit": False})
    it.page.wait_for_timeout(200)
    assert "5.063 times" in it.page.locator("output").inner_text()
    for _ in range(8):
        it.page.keyboard.press("+")
    it.page.get_by_text("too close").wait_for()
    it.page.keyboard.press("0")
    it.page.wait_for_function("props.value.crop?.[3] === 48")
    assert it.page.get_by_text("too close").count() == 0


APP = """
import json, sys
import gradio as gr
from apps.studio import components

async def render(request: dict, who: gr.Request) -> dict:
    return {"error": "asked for " + request["token"] + " by " + str(who.client.host)}

async def frames(ask: dict) -> dict:
    data = {"size": [32, 32], "panes": [{"name": "a", "label": ask["k"], "frames": [picture]}]}
    return {"sections": [{"title": "T", "widget": "panes", "data": data, "notes": []}]}

picture = sys.argv[2]
entries = [{"name": "omega", "label": "omega", "help": "", "kind": "float", "default": 30.0}]
with gr.Blocks() as demo:
    form = components.form("form", "Form")
    start = gr.Button("Start")
    got = gr.Textbox(label="got")
    with gr.Tab("first"):
        stage = components.stage("stage", "Stage", frames)
    with gr.Tab("second"):
        deep = components.deep("deep", "Deep", render)
    start.click(lambda v: json.dumps(v["given"]), form, got, api_visibility="private")
    demo.load(lambda: (
        {"entries": entries, "given": {}, "errors": {}},
        {"id": "f", "ask": {"k": "asked for"}},
        {"id": "a", "token": "t7", "size": [32, 32], "picture": picture, "fit": True},
    ), None, [form, stage, deep], api_visibility="private")
demo.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), head=components.head(),
            css=components.css(), quiet=True)
"""


@pytest.mark.slow
def test_in_gradio(browser, monkeypatch):
    import gradio_client  # noqa: F401
    from playwright.sync_api import expect

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    server = subprocess.Popen([sys.executable, "-c", APP, str(port), picture(3)])
    page = browser.new_page(viewport={"width": 900, "height": 800})
    try:
        complaints: list[str] = []
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        for _ in range(300):
            assert server.poll() is None
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", port)) == 0:
                    break
            page.wait_for_timeout(200)
        page.goto(f"http://127.0.0.1:{port}/?__theme=dark")
        expect(page.locator("#stage canvas")).to_be_visible(timeout=20_000)
        expect(page.locator("#stage figcaption")).to_have_text("asked for")
        page.get_by_label("omega").fill("12.5")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_label("got")).to_have_value('{"omega": 12.5}')
        ink = "(e) => getComputedStyle(e).getPropertyValue('--ink')"
        assert page.locator("#stage .inr").evaluate(ink) == "#e8e6e1"
        page.get_by_role("tab", name="second").click()
        expect(page.locator("#deep .inr-error")).to_have_text("asked for t7 by 127.0.0.1")
        assert complaints == []
    finally:
        page.close()
        server.terminate()
        server.wait(20)
