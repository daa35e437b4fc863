"""How the studio answers: page, first preview, 30 dB, Stop, a closed tab; memory over fits.

    python benchmarks/studio.py [--rounds 5] [--cycles 50]

Chromium opens `inr studio`, drops the camera at 256 x 256 and presses the buttons; each round is a
tab of its own. The baseline of a preview is a bare `inr.fit` with the same budget in this process:
what a watched fit loses to it in steps is the price of being watched.
"""

import argparse
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import PIL.Image
import psutil
from common import ROOT, machine, table
from playwright.sync_api import sync_playwright

import inr

STATUS = "(document.querySelector('#fit-status') || {}).textContent || ''"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SECONDS = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=50)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    camera = PIL.Image.open(ROOT / "assets" / "camera.png")
    picture, piece = folder / "camera256.png", folder / "piece.png"
    camera.resize((256, 256), PIL.Image.Resampling.BOX).save(picture)
    camera.crop((192, 96, 240, 144)).save(piece)
    command = [sys.executable, "-m", "apps.cli.main", "studio", "--port", "0", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    time.sleep(8)  # the workers warm up meanwhile
    found: dict[str, list[float]] = {}
    try:
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            for _ in range(args.rounds):
                for name, value in one_round(browser, url, picture, server.pid).items():
                    found.setdefault(name, []).append(value)
            grown = leak(browser, url, piece, server.pid, args.cycles)
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
    bare = inr.fit(inr.open(picture), seconds=SECONDS).steps
    print(machine())
    rows = [
        [name, f"{statistics.median(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}"]
        for name, values in found.items()
    ]
    print(table(["seconds, unless said", "median", "least", "most"], rows))
    watched = statistics.median(found["steps in 8 s"])
    print(f"steps of a bare fit in 8 s: {bare}; watched: {watched / bare:.2f} of them")
    print(f"memory over {args.cycles} starts and stops: {grown / 1e6:+.1f} MB")
    shutil.rmtree(folder)


def opened(browser: Any, url: str, path: Path, seconds: float) -> tuple[Any, float]:
    """A tab with a signal in it, and the seconds until its page was ready."""
    page = browser.new_page(viewport={"width": 1360, "height": 1000})
    begin = time.monotonic()
    page.goto(url)
    page.wait_for_selector("#fit-start")
    ready = time.monotonic() - begin
    page.wait_for_function("sessionStorage.getItem('inr-studio')")
    page.set_input_files("#fit-file input[type=file]", str(path))
    page.wait_for_function("!document.querySelector('#fit-start').disabled")
    page.fill("#fit-amount input", str(seconds))
    page.press("#fit-amount input", "Tab")
    return page, ready


def press(page: Any, name: str) -> float:
    page.wait_for_function(f"!document.querySelector('#{name}').disabled")
    page.evaluate(f"document.querySelector('#{name}').click()")
    return time.monotonic()


def says(page: Any, pattern: str) -> float:
    page.wait_for_function(f"/{pattern}/.test({STATUS})")
    return time.monotonic()


def one_round(browser: Any, url: str, picture: Path, pid: int) -> dict[str, float]:
    """What one visitor waits for."""
    page, ready = opened(browser, url, picture, SECONDS)
    found = {"page ready": ready}
    begin = press(page, "fit-start")
    page.wait_for_selector("#fit-stage canvas")
    found["first preview after Start"] = time.monotonic() - begin
    found["30 dB after Start"] = says(page, r"([3-9]\d|1\d\d)\.\d+ dB") - begin
    says(page, "Writing|Done")
    steps = re.search(r"step ([\d,]+)", page.evaluate(STATUS))
    assert steps is not None
    found["steps in 8 s"] = float(steps[1].replace(",", ""))
    says(page, "Done")
    page.fill("#fit-amount input", "600")
    page.press("#fit-amount input", "Tab")
    press(page, "fit-start")
    says(page, "Fitting")
    begin = press(page, "fit-stop")
    found["Stop until the fit has ended"] = says(page, "Writing|Done") - begin
    says(page, "Done")
    press(page, "fit-start")
    says(page, "Fitting")
    page.close()
    begin = time.monotonic()
    while working(pid):
        pass
    found["closed tab until its worker rests"] = time.monotonic() - begin
    return found


def working(pid: int) -> bool:
    """Whether a worker computes."""
    before = [sum(child.cpu_times()[:2]) for child in psutil.Process(pid).children()]
    time.sleep(0.5)
    after = [sum(child.cpu_times()[:2]) for child in psutil.Process(pid).children()]
    return sum(after) - sum(before) > 0.1


def leak(browser: Any, url: str, piece: Path, pid: int, cycles: int) -> float:
    """What fits that are started and stopped leave in memory, in bytes, after eight of them."""
    page, _ = opened(browser, url, piece, 60)
    sizes = []
    for _ in range(8 + cycles):
        press(page, "fit-start")
        says(page, "Fitting")
        press(page, "fit-stop")
        says(page, "Done")
        whole = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        sizes.append(sum(process.memory_info().rss for process in whole))
    return float(sizes[-1] - sizes[7])


if __name__ == "__main__":
    main()
