"""A trainer's file: `Trainer.save` and `Trainer.load`; what it holds is in `saved.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from gpumlp.backends.base import on_device
from gpumlp.distributed import Communicator
from gpumlp.schedules import get_schedule
from gpumlp.training.settings import Callback, Settings, check_callbacks

__all__ = ["Filed"]

_Trainer = TypeVar("_Trainer", bound="Filed")


class Filed(Settings):
    """The part of a `Trainer` that writes and reads files."""

    @on_device
    def save(self, path: Any) -> None:
        """Write model and training to one .npz file, atomically; `load` resumes from it.

        The file holds what decides how training goes on: parameters, optimiser state, numbers of steps and
        epochs, seed, settings.  It does not hold callbacks, rows, or the counting of an `EarlyStopping`.
        `save` may be called in a callback.  `gpumlp.load` reads the model alone from the file.  Of several
        ranks the first one writes; the others do not wait for it.

        Raises
        ------
        ValueError
            A parameter is NaN or infinite.
        OSError
            The file cannot be written.
        """
        from gpumlp.training.saved import save_trainer

        if self.leads:
            save_trainer(self, path)

    @classmethod
    def load(
        cls: type[_Trainer],
        path: Any,
        device: Any = "auto",
        *,
        schedule: Any = None,
        callbacks: Sequence[Callback] = (),
        communicator: str | Communicator | None = None,
        reproducible: bool = True,
    ) -> _Trainer:
        """The trainer, with its model, that `save` wrote: `fit` on the same rows continues bit for bit.

        Parameters
        ----------
        path : path
        device : str
            As for `MLP`; it need not be the one that the file comes from.
        schedule : optional
            Instead of the saved one; needed if that was a function of your own.
        callbacks : sequence of callables
        communicator, reproducible : optional
            As for `Trainer`; the number of ranks need not be the one that the file comes from.

        Raises
        ------
        gpumlp.ModelFileError
            The file is damaged, or holds no training.
        ValueError, TypeError
            The schedule is missing, or an argument is of the wrong kind.

        Examples
        --------
        >>> import numpy as np, gpumlp, tempfile, os
        >>> X, y = np.linspace(-1, 1, 64).reshape(-1, 1), np.linspace(-1, 1, 64) ** 2
        >>> settings = {"loss": "squared_error", "optimizer": gpumlp.Adam(lr=0.01)}
        >>> whole = gpumlp.Trainer(gpumlp.MLP([1, 8, 1], "tanh", device="cpu"), **settings)
        >>> half = gpumlp.Trainer(gpumlp.MLP([1, 8, 1], "tanh", device="cpu"), **settings)
        >>> path = os.path.join(tempfile.mkdtemp(), "half.npz")
        >>> _ = whole.fit(X, y, epochs=4), half.fit(X, y, epochs=2), half.save(path)
        >>> resumed = gpumlp.Trainer.load(path, device="cpu")
        >>> _ = resumed.fit(X, y, epochs=2)
        >>> bool((resumed.model.flat == whole.model.flat).all())
        True
        """
        from gpumlp.training.saved import load_trainer

        checked = check_callbacks(callbacks)
        if schedule is not None:
            schedule = get_schedule(schedule)
        job: dict[str, Any] = {"communicator": communicator, "reproducible": reproducible}
        loaded: _Trainer = load_trainer(
            partial(cls, **job), path, device, schedule=schedule, callbacks=checked
        )
        return loaded
