"""Video files in and out through ffmpeg, frame by frame; imageio-ffmpeg brings the program.

What ffmpeg may open is confined: one file of a known container, no network, no playlists. It turns
frames upright as the file asks, and gives a file of uneven timing the even rate that it claims.
"""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from inr.errors import InputError, OutputError, UsageError

CONTAINERS = ("avi", "matroska", "mov", "mpeg", "mpegts", "flv", "ogg", "asf")
"""What ffmpeg may open, by its names; "mov" is MP4 too, "matroska" WebM."""

ENCODERS = {
    ".mp4": ("libx264", "-crf", "12", "-movflags", "+faststart"),
    ".mov": ("libx264", "-crf", "12", "-movflags", "+faststart"),
    ".mkv": ("libx264", "-crf", "12"),
    ".webm": ("libvpx-vp9", "-crf", "18", "-b:v", "0", "-row-mt", "1"),
}
"""Formats that are written, by suffix, each with its encoder and quality."""

COLOURS = "bt709"
"""The matrix of what is written. Without a tag players guess it by the size of the picture."""

HEADER_BYTES = 512
LOG_BYTES = 1 << 16


class Facts(NamedTuple):
    """What a file says of its video.

    Args:
        width: Pixels in a row, as shown.
        height: Rows, as shown.
        rate: Frames per second.
        seconds: Length, 0 where it is not told.
        grey: Whether frames have no colours.
        remarks: What is lost in reading, a line each.
    """

    width: int
    height: int
    rate: Fraction
    seconds: float
    grey: bool
    remarks: list[str]

    @property
    def channels(self) -> int:
        """1 grey, 3 RGB."""
        return 1 if self.grey else 3


def probe(path: Path) -> Facts:
    """Read what a file says of its first video stream.

    Raises:
        InputError: it holds none, or is damaged.
    """
    output = ("-frames:v", "1", "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe")
    with _started(path, "info", output) as (process, log):
        head = process.stdout.readline(HEADER_BYTES)  # type: ignore[union-attr]
        process.kill()
        process.wait()
        said = _said(log)
    found = re.match(rb"YUV4MPEG2 W(\d{1,9}) H(\d{1,9}) F(\d{1,18}):(\d{1,18})\b", head)
    if found is None:
        raise InputError(_complaint(said))
    width, height, top, bottom = (int(number) for number in found.groups())
    if not top or not bottom:
        raise InputError("does not say how many frames it has per second: give --video.fps")
    line = re.search(r"Stream #0:.*?: Video: (.*)", said)
    coding = line.group(1) if line else ""
    remarks = []
    if re.search(r"Stream #0:.*?: Audio: ", said):
        remarks.append("its sound is left out")
    if re.search(r"p1[0-6](le|be)\b|gray1[0-6]", coding):
        remarks.append("its colours of more than 8 bits are read as 8")
    if re.search(r"\b(yuva|rgba|bgra|argb|abgr|gbrap|ya8|ya16)", coding):
        remarks.append("its transparency is left out")
    if re.search(r"SAR (?!1:1 )\d+:\d+", coding):
        remarks.append("its pixels are not square, and are kept as they are")
    length = re.search(r"Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", said)
    seconds = 0.0
    if length:
        hours, minutes, rest = length.groups()
        seconds = 3600 * int(hours) + 60 * int(minutes) + float(rest)
    grey = re.search(r"\b(gray|mono|ya8|ya16)", coding) is not None
    return Facts(width, height, Fraction(top, bottom), seconds, grey, remarks)


def read(path: Path, facts: Facts) -> Iterator[np.ndarray]:
    """Yield frames of shape (height, width, channels), uint8, in the order of their time.

    Raises:
        InputError: the file is damaged or cut short.
    """
    shape = (facts.height, facts.width, facts.channels)
    size = math.prod(shape)
    output = ("-pix_fmt", "gray" if facts.grey else "rgb24", "-f", "rawvideo")
    with _started(path, "error", output) as (process, log):
        while True:
            data = process.stdout.read(size)  # type: ignore[union-attr]
            if len(data) < size:
                break
            yield np.frombuffer(data, np.uint8).reshape(shape)
        if process.wait() or data:
            raise InputError(_complaint(_said(log)))


def write(
    path: Path, frames: Iterable[np.ndarray], size: tuple[int, int], rate: Fraction, suffix: str
) -> None:
    """Write frames of shape (height, width, 1 or 3), uint8, as they come.

    Colours are stored as 4:2:0: at half the size, which needs even sides. Where they are odd, the
    last row or column is there twice.

    Args:
        path: Where to write.
        frames: As many as there are.
        size: (height, width) of each.
        rate: Frames per second.
        suffix: Which format, one of `ENCODERS`.

    Raises:
        OutputError: ffmpeg could not write it.
    """
    coder, *options = ENCODERS[suffix]
    height, width = (n + n % 2 for n in size)
    grey: bool | None = None
    process = None
    with tempfile.TemporaryFile() as log:
        try:
            for frame in frames:
                if process is None:
                    grey = frame.shape[-1] == 1
                    process = subprocess.Popen(  # noqa: S603 (no shell)
                        [
                            *_program("-f", "rawvideo", "-pix_fmt", "gray" if grey else "rgb24"),
                            *("-s", f"{width}x{height}", "-r", str(rate), "-i", "pipe:0"),
                            *("-vf", f"scale=out_color_matrix={COLOURS}:out_range=tv"),
                            *("-pix_fmt", "yuv420p", "-colorspace", COLOURS),
                            *("-color_primaries", COLOURS, "-color_trc", COLOURS),
                            *("-c:v", coder, *options, "-f", _muxer(suffix), "-y", _url(path)),
                        ],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                    )
                edges = [(0, height - size[0]), (0, width - size[1]), (0, 0)]
                padded = np.pad(frame, edges, mode="edge")
                process.stdin.write(padded.tobytes())  # type: ignore[union-attr]
            if process is not None:
                process.stdin.close()  # type: ignore[union-attr]
                if process.wait():
                    raise OutputError(f"ffmpeg wrote nothing: {_last(_said(log))}")
        except BrokenPipeError:
            process.wait()  # type: ignore[union-attr]
            raise OutputError(f"ffmpeg wrote nothing: {_last(_said(log))}") from None
        finally:
            if process is not None:
                _end(process)


def check_size(size: tuple[int, int], suffix: str) -> None:
    """Refuse frames (height, width) that the encoder of a suffix cannot take.

    Raises:
        UsageError: they are too small or too large.
    """
    if not all(2 <= n <= 16384 for n in size):
        raise UsageError(
            f"frames of {size[1]} x {size[0]} do not fit into {suffix}: its sides are from 2 to "
            "16,384 pixels; choose another --size, or write .npz"
        )


def _program(*options: str, level: str = "error") -> list[str]:
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: it finds no ffmpeg
        raise InputError(
            "video needs the package imageio-ffmpeg: pip install 'inr-studio[video]'"
        ) from None
    return [program, "-nostdin", "-hide_banner", "-v", level, *options]


@contextlib.contextmanager
def _started(
    path: Path, level: str, output: Iterable[str]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Ffmpeg reading the first video stream of a file, and what it says; ended in any case."""
    confined = ("-protocol_whitelist", "file", "-format_whitelist", ",".join(CONTAINERS))
    command = [
        # an error ends it, or it would guess what is missing
        *_program("-xerror", *confined, "-i", _url(path), level=level),
        *("-map", "0:v:0", "-an", "-sn", "-dn", *output, "pipe:1"),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 (no shell)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
        try:
            yield process, log
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no process and no pipe behind."""
    if process.poll() is None:
        process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def _url(path: Path) -> str:
    """A path that ffmpeg takes for nothing else, whatever its name begins with."""
    return f"file:{path.absolute()}"


def _muxer(suffix: str) -> str:
    return {".mkv": "matroska"}.get(suffix, suffix[1:])


def _said(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read(LOG_BYTES).decode("utf-8", "replace")


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return _plain(lines[-1]) if lines else "it gave no reason"


def _plain(line: str) -> str:
    """A line of ffmpeg's without the names of its parts and their addresses."""
    return re.sub(r"^(\[[^]]*\] )+", "", line.strip())


def _complaint(said: str) -> str:
    """One line for a person from what ffmpeg said."""
    if "matches no streams" in said:
        return "holds no video"
    reasons = [_plain(line) for line in said.splitlines()]
    known = ("moov atom not found", "partial file", "truncat", "corrupt", "rror", "nvalid")
    told = next((r for word in known for r in reasons if word in r), "")
    reason = re.sub(r" file:\S.*", "", told).strip(" .:")
    return f"is damaged, cut short or no video ({reason or 'ffmpeg reads nothing in it'})"
