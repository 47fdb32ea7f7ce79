"""Progress of a training run: a bar on a terminal where tqdm is installed, silence everywhere else."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Progress"]

_SHOWN = 4  # metrics beside the bar; more would wrap on an 80-column terminal


class Progress:
    """A progress bar over epochs, on stderr.

    Parameters
    ----------
    total_epochs : int
    enabled : bool, optional
        None: only if stderr is a terminal.  True: always.  False: never.  Without tqdm there is no bar.

    Notes
    -----
    With early stopping the bar ends where training ends.
    """

    def __init__(self, total_epochs: int, enabled: bool | None = None) -> None:
        self._bar: Any = None
        if enabled is None:
            enabled = sys.stderr is not None and sys.stderr.isatty()
        if not enabled:
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return
        self._bar = tqdm(total=total_epochs, unit="epoch", leave=False, dynamic_ncols=True, file=sys.stderr)

    def __call__(self, trainer: Any, history: Any) -> None:
        """The callback: show that an epoch is done, with its figures."""
        if self._bar is None:
            return
        shown = {k: f"{v[-1]:.4g}" for k, v in history.metrics.items() if k not in ("seconds", "lr")}
        self._bar.set_postfix(dict(list(shown.items())[:_SHOWN]), refresh=False)
        self._bar.update(len(history) - self._bar.n)

    @property
    def shown(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    def show(self, epochs: int, text: str) -> None:
        """Show that `epochs` are done, and `text`."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(epochs - self._bar.n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
