"""What the page shows of a field while it is fitted, and once it is a file: one kind a file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from apps.studio.live.base import View
from inr.errors import InputError, UsageError

if TYPE_CHECKING:
    from apps.view.page import Section
    from fields.base import Field
    from inr.signals.base import Signal

__all__ = ["VIEWS", "View", "finished", "view_of"]

VIEWS = {
    "array": "apps.studio.live.array:ArrayView",
    "audio": "apps.studio.live.audio:AudioView",
    "image": "apps.studio.live.image:ImageView",
    "shape": "apps.studio.live.shape:ShapeView",
    "video": "apps.studio.live.video:VideoView",
    "volume": "apps.studio.live.volume:VolumeView",
}
"""By kind of signal, the class of its view."""


def view_of(signal: Signal) -> View:
    """The view of a field that is fitted to a signal.

    Raises:
        UsageError: nothing is shown of such a signal.
    """
    from inr.signals.base import GridSignal
    from inr.signals.observed import Observed

    kind = signal.domain.kind
    if kind not in VIEWS:
        raise UsageError(f"nothing is shown of a signal of kind {kind!r}: fit it by the command")
    module, _, name = VIEWS[kind].partition(":")
    make: Any = getattr(import_module(module), name)
    if isinstance(signal, Observed):
        from apps.studio.live.observed import ObservedView

        if kind == "image":
            return ObservedView(signal, make(signal.domain, signal.truth, of=signal))
        return ObservedView(signal, make(signal.domain, signal.truth))
    if kind == "shape":
        return make(signal)
    assert isinstance(signal, GridSignal)
    return make(signal.domain, signal)


def finished(field: Field, signal: Signal, room: int) -> list[Section]:
    """What is shown of a decoded file: what `inr view` shows of it, beside what was fitted.

    Args:
        field: What the file decodes to; it has a domain.
        signal: What was fitted. Of one that was seen through an operator the observations are
            shown, the reconstruction, and the truth where it is known.
        room: Bytes that the sections may weigh, about.
    """
    from apps.view.image import BYTES_PER_PIXEL
    from apps.view.page import weight, within
    from inr.signals.observed import Observed

    shown: Any = import_module(f"apps.view.{field.domain.kind}").sections
    if isinstance(signal, Observed):
        from apps.studio.live.observed import beside

        first = within(room // 2, lambda share: beside(field, signal, share // BYTES_PER_PIXEL))
        left = room - sum(map(weight, first))
        return [*first, *within(left, lambda share: shown(field, signal.truth, share))]
    if field.domain.kind != "shape":
        return within(room, lambda share: shown(field, signal, share))
    try:
        return within(room, lambda share: shown(field, signal, share))
    except InputError:  # it has no surface: the frame says so
        return view_of(signal).sections(field, 1 << 18, {})
