"""Clips: x265 and x264, by the encoders that PyAV brings.

The file is the raw bit stream (Annex B), which is the smallest that players take: MP4 would add
about 1.7 kB to a short clip. What the encoders write of themselves into it is left out.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from apps.compare.codec import Codec, version
from inr.errors import InputError
from inr.limits import Limits
from inr.metrics import psnr_arrays
from inr.signals.base import Signal
from inr.signals.clips import collect
from inr.signals.video import Video


class Converter:
    """Turns frames from one pixel format into another, exactly.

    swscale's default is fast, darkens 4:2:0 by one of 255, and so costs a good clip 1 dB.

    Args:
        form: The format that frames get.
    """

    FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"

    def __init__(self, form: str) -> None:
        self.form = form
        self._graph: Any = None

    def __call__(self, frame: Any) -> Any:
        """The next frame, of the same size and format as those before."""
        from av.filter import Graph

        if self._graph is None:
            self._graph = Graph()
            source = self._graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format.name,
                time_base=Fraction(1, 25),  # nobody looks at it
            )
            scale = self._graph.add("scale", f"flags={self.FLAGS}")
            form = self._graph.add("format", self.form)
            self._graph.link_nodes(source, scale, form, self._graph.add("buffersink")).configure()
        self._graph.push(frame)
        return self._graph.pull()


@dataclass(frozen=True)
class ClipCodec(Codec):
    """An encoder of libavcodec at constant quality (CRF).

    Args:
        coder: libavcodec's name of it.
        muxer: libavformat's name of its bit stream.
        colours: Pixel format of RGB clips; grey ones stay grey.
        options: Of the encoder.
        silenced: A bit stream filter that takes out what the encoder says of itself.
    """

    coder: str
    muxer: str
    colours: str
    options: tuple[tuple[str, str], ...] = ()
    silenced: str = ""

    def about(self) -> str:
        found = version("av", f"{self.name} needs")
        chroma = {"yuv420p": "4:2:0", "yuv444p": "4:4:4"}[self.colours]
        return f"PyAV {found}, {self.coder}, {chroma}, BT.601, preset medium, raw {self.muxer}"

    def label(self, setting: float) -> str:
        return f"CRF {setting:g}"

    def encode(self, signal: Signal, setting: float) -> bytes:
        import av
        from av.video.reformatter import ColorRange

        assert isinstance(signal, Video)
        _, height, width = signal.domain.shape
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=self.muxer) as file:
            options = {"preset": "medium", "crf": f"{setting:g}", **dict(self.options)}
            stream: Any = file.add_stream(self.coder, rate=signal.domain.rate, options=options)
            stream.pix_fmt = self.colours
            if signal.channels == 1:
                stream.pix_fmt = "gray"
                stream.codec_context.color_range = ColorRange.JPEG
            height, width = (n + n % 2 for n in (height, width))
            stream.width, stream.height = width, height
            filtered: Any = None
            if self.silenced:
                from av.bitstream import BitStreamFilterContext

                filtered = BitStreamFilterContext(self.silenced, stream)
            frames = _frames(signal, (height, width), stream.pix_fmt)
            for frame in itertools.chain(frames, [None]):
                for packet in stream.encode(frame):
                    file.mux(packet if filtered is None else filtered.filter(packet))
            if filtered is not None:
                file.mux(filtered.filter(None))
        return buffer.getvalue()

    def decode(self, data: bytes, signal: Signal) -> np.ndarray:
        assert isinstance(signal, Video)
        made = collect(self._shown(data, signal), Limits())
        if made.shape != signal.samples.shape:
            raise InputError(f"came back with {len(made)} of {signal.domain.frames} frames")
        return made

    def _shown(self, data: bytes, signal: Video) -> Iterator[np.ndarray]:
        import av

        _, height, width = signal.domain.shape
        grey, to_rgb = signal.channels == 1, Converter("rgb24")
        with av.open(io.BytesIO(data), "r", format=self.muxer) as file:
            for frame in file.decode(video=0):
                # of a grey clip the luma as it is: x264 adds empty colours
                pixels = (frame if grey else to_rgb(frame)).to_ndarray()
                pixels = pixels[:height, :width].reshape(height, width, signal.channels)
                yield np.ascontiguousarray(pixels)


CRF = (18, 23, 28, 33, 38, 43)
QUIET_265 = (("x265-params", "log-level=error:info=0"),)

CODECS = (
    ClipCodec("x265", CRF[::-1], "libx265", "hevc", "yuv444p", QUIET_265),
    ClipCodec("x265-420", CRF[::-1], "libx265", "hevc", "yuv420p", QUIET_265),
    ClipCodec(
        "x264", CRF[::-1], "libx264", "h264", "yuv420p", (("threads", "1"),),
        "filter_units=remove_types=6",
    ),
)  # fmt: skip


def _frames(signal: Video, size: tuple[int, int], form: str) -> Iterator[Any]:
    """Frames in the encoder's format; odd sides have their last row or column twice."""
    import av

    convert = Converter(form)
    for k, pixels in enumerate(signal.samples):
        edges = [(0, n - m) for n, m in zip(size, pixels.shape, strict=False)] + [(0, 0)]
        padded = np.ascontiguousarray(np.pad(pixels, edges, mode="edge"))
        if signal.channels == 1:
            frame = av.VideoFrame.from_ndarray(padded[..., 0], format="gray")
        else:
            frame = convert(av.VideoFrame.from_ndarray(padded, format="rgb24"))
        frame.pts, frame.time_base = k, 1 / signal.domain.rate
        yield frame


def prepared(signal: Signal) -> tuple[Video, list[str]]:
    """The clip, and what was lost in reading it.

    Raises:
        InputError: it has more than 8 bits.
    """
    assert isinstance(signal, Video)
    if signal.domain.depth != 8:
        raise InputError("has 16 bits per sample: clips of 8 are compared")
    return signal, list(signal.notes)


def measure(signal: Signal, decoded: np.ndarray) -> dict[str, float]:
    """PSNR in dB over all samples of all frames, R = 255."""
    assert isinstance(signal, Video)
    return {"psnr": psnr_arrays(signal.samples, decoded, 255)}
