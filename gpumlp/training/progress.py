"""Progress of a training run: a bar on a terminal or in a notebook if tqdm is there, else silence."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gpumlp.backends.lane import here

__all__ = ["EVERY", "Progress"]

_FORMAT = "{percentage:3.0f}%|{bar}| {n:g}/{total:g} epochs [{elapsed}<{remaining}{postfix}]"
_SHOWN = 2  # metrics beside the bar: more leave no room for it on 80 columns
EVERY = 0.2  # seconds between looks into a running epoch


class Progress:
    """A progress bar over epochs, on stderr or in a notebook.

    Parameters
    ----------
    total_epochs : int
    enabled : bool, optional
        None: only if stderr is a terminal, or in a notebook.  True: always.  False: never.  Without tqdm
        there is no bar.

    Notes
    -----
    With early stopping the bar ends where training ends.
    """

    def __init__(self, total_epochs: int, enabled: bool | None = None) -> None:
        self._bar: Any = None
        notebook = _in_notebook()
        if enabled is None:
            enabled = notebook or (sys.stderr is not None and sys.stderr.isatty())
        tqdm = _tqdm(notebook) if enabled else None
        if tqdm is not None:
            self._bar = tqdm(
                total=total_epochs, leave=False, dynamic_ncols=True, file=sys.stderr, bar_format=_FORMAT
            )

    def __call__(self, trainer: Any, history: Any) -> None:
        """The callback: show that an epoch is done, with its figures."""
        shown = {k: f"{v[-1]:.4g}" for k, v in history.metrics.items() if k not in ("seconds", "lr")}
        self.show(len(history), ", ".join(f"{k}={v}" for k, v in list(shown.items())[:_SHOWN]))

    @property
    def shown(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    def show(self, epochs: float, text: str | None = None, total: int | None = None) -> None:
        """Show that so many epochs are done, never fewer than before, and `text`; `total` if there are others
        now."""
        if self._bar is None:
            return
        if total is not None:
            self._bar.total = total
        if text is not None:
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(max(0.0, round(epochs, 1) - self._bar.n))

    @contextmanager
    def watching(self, done: Callable[[], float]) -> Iterator[None]:
        """Meanwhile show also how much of a running epoch is done: `done` says how many epochs are, and is
        asked between the steps of plans on the CPU."""
        if self._bar is None or here.lane is not None:
            yield
            return
        here.lane = _Watch(lambda: self.show(done()))
        try:
            yield
        finally:
            here.lane = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Watch:
    """A `Lane` that changes nothing but looks."""

    alone, later = False, None

    def __init__(self, look: Callable[[], None]) -> None:
        self._look, self._last = look, time.monotonic()

    def check(self) -> None:
        """See `Lane`."""
        if (now := time.monotonic()) > self._last + EVERY:
            self._last = now
            self._look()

    def call(self, function: Callable, *given: Any, **named: Any) -> Any:
        """See `Lane`."""
        return function(*given, **named)


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this program."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _tqdm(notebook: bool) -> Any:
    """The class of the bar, None without tqdm."""
    try:
        if not notebook:
            from tqdm import tqdm

            return tqdm
        with warnings.catch_warnings():  # without ipywidgets the bar is one of letters
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm as bar
        return bar
    except ImportError:
        return None
