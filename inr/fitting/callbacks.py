"""What happens between bursts: progress, preview, stop, snapshot, rollback."""

from __future__ import annotations

import contextlib
import copy
import math
import signal as signals
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from inr.errors import FitError
from inr.fitting.module import FitModule
from inr.metrics import psnr

Event = dict[str, Any]


class BetweenBursts(pl.Callback):
    """Base: `between(module)` runs after every burst, at most every `every` seconds."""

    every = 0.0

    def __init__(self) -> None:
        self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Lightning's hook."""
        now = time.monotonic()
        if now - self._last >= self.every:
            self._last = now
            assert isinstance(pl_module, FitModule)
            self.between(pl_module)

    def between(self, module: FitModule) -> None:
        """What to do; `module.finished = "stopped"` ends the fit."""
        raise NotImplementedError


class Report(BetweenBursts):
    """Hand an event with step, seconds and PSNR to a function, a few times a second.

    Args:
        emit: Called with the event.
        every: Seconds between events.
    """

    def __init__(self, emit: Callable[[Event], None], every: float = 0.2) -> None:
        super().__init__()
        self.emit = emit
        self.every = every

    def between(self, module: FitModule) -> None:
        """Emit the state of the fit."""
        self.emit(
            {
                "event": "progress",
                "step": module.fit_step,
                "seconds": round(module.seconds, 3),
                "psnr": round(psnr(module.loss, 2.0), 3) if 0 < module.loss < math.inf else None,
                "progress": round(min(module.progress(), 1.0), 4),
            }
        )


class Preview(BetweenBursts):
    """Hand the live field to a function every so often; what it costs is fitting time.

    Args:
        show: Called with the field, weights as they are; it must not change them.
        every: Seconds between previews.
    """

    def __init__(self, show: Callable[[Any], None], every: float = 0.5) -> None:
        super().__init__()
        self.show = show
        self.every = every

    def between(self, module: FitModule) -> None:
        """Show the field."""
        self.show(module.field)


class NanGuard(BetweenBursts):
    """Roll back to the last good state when the loss is no number, at half the learning rate.

    Args:
        tries: Rollbacks before the fit is given up.
        every: Seconds between copies of the state.

    Raises:
        FitError: it diverged once more than `tries` times.
    """

    def __init__(self, tries: int = 3, every: float = 1.0) -> None:
        super().__init__()
        self.tries = tries
        self._every = every
        self._kept = -math.inf
        self._good: tuple[Any, Any, int, float, list[int] | None] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the initial state, so that there always is one to return to."""
        assert isinstance(pl_module, FitModule)
        self._keep(pl_module)

    def between(self, module: FitModule) -> None:
        """Keep a good state, or return to it."""
        if module.fit_step == 0:
            return
        if math.isfinite(module.loss) and _finite(module.field):
            if time.monotonic() - self._kept >= self._every:
                self._keep(module)
            return
        if self.tries == 0:
            raise FitError(
                f"the fit diverged at step {module.fit_step}: lower recipe.lr "
                f"(now {module.recipe.lr * module.lr_scale:g})"
            )
        self.tries -= 1
        assert self._good is not None
        weights, optimiser, module.fit_step, module.loss, module.rounding = self._good
        module.load_state_dict(weights)
        module.adam.load_state_dict(copy.deepcopy(optimiser))
        module.history = [entry for entry in module.history if entry[0] <= module.fit_step]
        module.lr_scale /= 2
        module.finished = None

    def _keep(self, module: FitModule) -> None:
        weights = {name: t.detach().clone() for name, t in module.state_dict().items()}
        optimiser = copy.deepcopy(module.adam.state_dict())
        self._good = (weights, optimiser, module.fit_step, module.loss, module.rounding)
        self._kept = time.monotonic()


class StopOnSignal(pl.Callback):
    """End the fit, keeping what is done, on the first SIGINT or SIGTERM; a second one aborts.

    Attributes:
        received: Number of the signal, or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._old: dict[int, Any] = {}
        self._module: FitModule | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the two signals, after Lightning has set a handler of its own for SIGTERM."""
        assert isinstance(pl_module, FitModule)
        self._module = pl_module
        if threading.current_thread() is threading.main_thread():
            for number in (signals.SIGINT, signals.SIGTERM):
                self._old[number] = signals.signal(number, self._handle)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give them back, before Lightning gives back its own."""
        self.restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give them back."""
        self.restore()

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._old.items():
            signals.signal(number, handler)
        self._old.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received or self._module is None:
            self.restore()
            raise KeyboardInterrupt
        self.received = number
        self._module.finished = "stopped"


class ProgressBar(Report):
    """A bar on stderr: step, rate, PSNR, time left. Silent where stderr is no terminal.

    Args:
        label: What is being fitted; it may change between fits.
    """

    def __init__(self, label: str) -> None:
        super().__init__(self._show)
        self.label = label
        self._bar: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn(escape(self.label)),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("fit", total=1.0, state="")
        self._bar.start()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the error's line stands alone."""
        self.close()

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            with contextlib.suppress(Exception):
                self._bar.stop()
            self._bar = None

    def _show(self, event: Event) -> None:
        if self._bar is None:
            return
        rate = event["step"] / max(event["seconds"], 1e-9)
        quality = f"{event['psnr']:.2f} dB" if event["psnr"] is not None else "-"
        state = f"{event['step']} steps  {rate:.1f}/s  {quality}"
        self._bar.update(self._task, completed=event["progress"], state=state)


def _finite(field: Any) -> bool:
    import torch

    return all(bool(torch.isfinite(p).all()) for p in field.parameters())
