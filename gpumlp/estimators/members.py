"""Fits of estimators that are advanced side by side: members for `training.members.train`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from sklearn import config_context, get_config
from sklearn.utils import check_random_state

from gpumlp.backends import get_backend
from gpumlp.errors import DeviceError
from gpumlp.estimators.inputs import unpack
from gpumlp.estimators.shared import Shared
from gpumlp.training.loop import RECORDED

__all__ = ["FitMember", "InOrder", "draws_from_numpy"]


#: rows times parameters of an epoch whose operations take about 0.1 ms, as long as the Python between two
_THREADED = 2_000_000


def draws_from_numpy(est: Any) -> bool:
    """Whether the random numbers of an estimator are those of NumPy's global generator."""
    state = est.random_state
    return not isinstance(state, int) and check_random_state(state) is check_random_state(None)


class FitMember:
    """A call of an estimator's `fit`.

    Parameters
    ----------
    est : MLPClassifier or MLPRegressor
    prepare : callable
        Gives what fits with the same rows share, and the positional and the named arguments of `fit`.
    end : callable
        Called with the member when it has ended, in the thread that waits for all fits.
    n_rows, n_features : int
        About those of the rows, for an estimate of the time it takes.

    Attributes
    ----------
    failure : Exception or None
        What `fit` raised.
    error : BaseException or None
        What else ended it.
    done : bool
    seconds : float
        Time spent on it.
    history : range
        As long as the number of epochs after which it went on.
    n_epochs : int
        Number of epochs, when it has ended.
    state : str or None
        Where the fit is: `WORKING` or `RECORDED`.
    together : bool
        It is one of several that wait for a plan, see `gpumlp.estimators.stacked`.
    """

    def __init__(
        self,
        est: Any,
        prepare: Callable[[], Any],
        end: Callable[[FitMember], None],
        n_rows: int,
        n_features: int,
    ) -> None:
        self.est, self._prepare, self._ends = est, prepare, end
        self.failure: Exception | None = None
        self.error: BaseException | None = None
        self.done, self.seconds, self.history, self.n_epochs = False, 0.0, range(0), 0
        self._shared, self.together = Shared(), False
        self.state: str | None = None
        self.epochs = est.max_iter if isinstance(est.max_iter, int) else 1
        self._running: Generator[str, None, None] | None = None
        self._config = get_config()
        self._epoch = n_rows * _size(est, n_features)
        self.lanes, self._interruptible = _lanes(est, self._epoch)
        self.on_cuda = not self._interruptible and est.solver != "lbfgs"

    @property
    def members(self) -> list[FitMember]:
        """See `training.members.Job`."""
        return [self]

    @property
    def work(self) -> int:
        """About proportional to the time it takes."""
        return self.epochs * self._epoch

    def advance(self, turn: Any, until: int) -> None:
        """Go on with the fit, to the end of epoch `until`."""
        while not self.done:
            if self.go_on(turn) is RECORDED:
                turn.look()
                if len(self.history) >= until:
                    return

    def go_on(self, turn: Any) -> str | None:
        """To the next place where the fit can be left, which `state` has then; None if it has ended."""
        start = time.perf_counter()
        turn.may_leave, self.state = self._interruptible, None
        try:
            with config_context(**self._config):
                if self._running is None:
                    self._running = self._begin()
                self.state = next(self._running, None)
        except Exception as error:
            self.failure = error
        finally:
            turn.may_leave = False
            self.seconds += time.perf_counter() - start
        if self.state is RECORDED:
            self.history = range(len(self.history) + 1)
        elif self.state is None:
            self.done = True
            turn.ask(self._end)
        return self.state

    @property
    def passes(self) -> Any:
        """The engine of the fit, once that has begun."""
        return self.est._training.passes

    def _end(self) -> None:
        est = self.est
        self.n_epochs = getattr(est, "n_iter_", 0)
        self.done, self._running, self.est, self._prepare = True, None, None, tuple
        self._ends(self)
        est._answer_alone()

    def _begin(self) -> Generator[str, None, None]:
        self._shared, (X, *given), named = self._prepare()
        self._shared.together = self.together
        if not self._config["skip_parameter_validation"]:
            self._shared.validate(self.est)
        return self.est._fit_pieces(self._shared, unpack(X), *given, **named)

    def show(self) -> None:
        """Between two pieces, let the estimator predict as if the fit ended there."""
        self.est._show(self._shared)

    def retire(self) -> None:
        """End at the epoch's end where it is now, with what `fit` leaves when it ends there."""
        if self._running is not None:
            self._running.close()
        self._end()

    def leave(self) -> None:
        """Forget it, if it has not ended."""
        self.done = True


class InOrder:
    """Fits of which each begins when the one before has ended, because they draw their random numbers from
    the same generator: a `training.members.Job`."""

    def __init__(self, members: list[FitMember]) -> None:
        self.members, self.work = members, sum(member.work for member in members)
        self.lanes = max(member.lanes for member in members)

    @property
    def done(self) -> bool:
        """Whether all have ended."""
        return all(member.done for member in self.members)

    def advance(self, turn: Any, until: int) -> None:
        """See `FitMember`."""
        for member in self.members:
            if not member.done:
                member.advance(turn, until)


def _size(est: Any, n_features: int) -> int:
    """About the number of parameters; what is no size is reported by `fit`."""
    try:
        hidden = [int(n) for n in est.hidden_layer_sizes]
    except TypeError:
        hidden = [est.hidden_layer_sizes] if isinstance(est.hidden_layer_sizes, int) else []
    except ValueError:
        hidden = []
    sizes = [n_features, *hidden, 1]
    return sum((a + 1) * b for a, b in zip(sizes, sizes[1:], strict=False))


def _lanes(est: Any, epoch: int) -> tuple[int, bool]:
    """(how many threads gain from such fits, see `Member.lanes`; whether a plan may be left in the middle)"""
    try:
        backend = get_backend(est.device)
    except (DeviceError, TypeError, ValueError):  # reported by `fit`
        return 1, False
    return (int(backend.lanes) if epoch >= _THREADED else 1), backend.device == "cpu"
