"""`Optimizer`: an update rule with its state and number of steps, for flat buffers and bare arrays."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

from gpumlp import backends
from gpumlp.backends.arrays import device_of
from gpumlp.checks import flag, same
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.optimizers.rule import Rule
from gpumlp.optimizers.again import Again
from gpumlp.optimizers.arrays import Given, as_list, is_host, open_pair, own, to_numpy
from gpumlp.optimizers.host import update_each
from gpumlp.optimizers.listed import Listed, check_not_captured
from gpumlp.optimizers.options import Options, checked
from gpumlp.optimizers.state import Stateful

__all__ = ["Optimizer"]


class Optimizer(Stateful):
    """A rule that remembers: base of all of `OPTIMIZERS`: `SGD`, `Adam` ...

    The hyper-parameters are attributes; assignments to them count from the next step on.

    Parameters
    ----------
    lr, l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Attributes
    ----------
    t : int
        Steps done.  Reading it waits for the device where `update` counts there: after `scale` was given, or
        with `capturable`.
    state : list of dict
        For each parameter its state arrays by name, and its shape as "_shape"; for parameters of 16 bits also
        "master", the float32 copy that is updated.
    """

    #: arrays of the parameters' size that its steps in a plan need besides the state
    scratch = 0
    #: whether the step of an element depends on those of its own place only
    by_element = True

    def __post_init__(self) -> None:
        self._t = 0
        self.state: list[dict[str, Any]] = []
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        self._again: Again | None = None
        self._listed: Listed | None = None
        self._capturable = False
        self._checked: list[Any] = []
        super().__post_init__()

    @property
    def t(self) -> int:
        """Steps done."""
        listed = self._listed
        return listed.done() if listed is not None and listed.counters is not None else self._t

    @t.setter
    def t(self, value: int) -> None:
        self._t, self._listed = value, None

    @property
    def capturable(self) -> bool:
        """Whether steps are counted on the device, so that `update` may be part of a CUDA graph of the
        caller's: bias corrections and a schedule then follow the replays.  May be assigned; False at first.

        Before the capture `update` must have been called with the same arrays, options and hyper-parameters.
        The graph goes on with those, and reads arrays of this object: keep it, and do not `reset` it.
        """
        return self._capturable

    @capturable.setter
    def capturable(self, value: bool) -> None:
        self._capturable, self._again = flag("capturable", value), None

    def __getstate__(self) -> dict[str, Any]:
        state = [  # on the host: it may be loaded where there is no such device
            {n: a if n == "_shape" or is_host(a) else to_numpy(a) for n, a in entry.items()}
            for entry in self.state
        ]
        return {
            **self.__dict__,
            "state": state,
            "_kernels": {},  # composed again: functions cannot be pickled
            "_again": None,
            "_listed": None,
            "_t": self.t,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"_t" if name == "t" else name: value for name, value in state.items()})
        for name, value in (("_listed", None), ("_capturable", False), ("_checked", [])):
            self.__dict__.setdefault(name, value)  # of versions that had none
        self.state = [{n: a if n == "_shape" else own(a) for n, a in entry.items()} for entry in self.state]

    def kernel(self, *, bare: bool = False, **kind: bool) -> Kernel:
        """See `Rule.kernel`; the same object for the same options and penalties, or for none (`bare`)."""
        on = tuple(sorted(name for name, value in kind.items() if value))
        key = on, bare, self.penalties(), self.options(), self.average > 0
        if key not in self._kernels:
            rule = self.bare() if bare and any(self.penalties()) else self
            self._kernels[key] = Rule.kernel(rule, **kind)
        return self._kernels[key]

    def check(self) -> None:
        """See `Rule.check`; at once if nothing has been assigned since it last was called."""
        values = list(map(self.__dict__.get, self.__dataclass_fields__))
        if not same(values, self._checked):
            super().check()
            self._checked = list(map(self.__dict__.get, self.__dataclass_fields__))

    def held(self) -> list[Any]:
        """The objects that its steps depend on, besides `t`: hyper-parameters and state arrays."""
        values = list(map(self.__dict__.get, self.__dataclass_fields__))
        for entry in self.state:
            values += entry.values()
        return values

    def bare(self) -> Any:
        """An optimiser with these hyper-parameters but without penalties: what biases get."""
        none = {"l1": 0.0, "l2": 0.0, "weight_decay": 0.0, "proximal": False}
        return type(self)(**{**self.hyperparameters(), **none})

    # ---- bare arrays -----------------------------------------------
    def update(
        self,
        params: Any,
        grads: Any,
        *,
        clip_norm: float | None = None,
        scale: Any = None,
        decay: Any = None,
        lr: Any = None,
        zero: bool = False,
    ) -> None:
        """One step on bare arrays.

        Parameters
        ----------
        params : array or list of arrays, any shapes and strides
            float32 or float64, or float16 or bfloat16 with a float32 copy that is kept here; of NumPy, CuPy,
            PyTorch or Numba, all on one device.  Modified in place.
        grads : array or list of arrays, of the same shapes, dtypes and device
            Of 16 bits also for float32 parameters, and the other way round; also of JAX.  Read only, but see
            `zero`.
        clip_norm : float, optional
            > 0; gradients whose norm, all arrays together, is larger are multiplied by clip_norm / norm.
        scale : float or array of one number, optional
            > 0; the loss was multiplied by it before the gradients were taken (loss scaling): they are
            divided by it, before `clip_norm`.  If one of them is not finite, the step is left out, and not
            counted.
        decay : bool or list of bool, optional
            For each array whether l1, l2 and weight_decay apply to it (weights: True, biases: False); by
            default to all.
        lr : float or schedule, optional
            Learning rate of this step; or a schedule (an object or name of `gpumlp.schedules`, or a function
            ``f(t, total)``), whose factor for the steps done so far multiplies `self.lr`.
        zero : bool
            Fill the gradients with zeros afterwards, also if the step is left out.

        Raises
        ------
        TypeError
            If a parameter and its gradient differ in device or do not fit in dtype, or an array's memory
            cannot be shared.
        ValueError
            If their number or shapes differ, an array that is written to is read-only, the state is of other
            shapes, or an option has no such value.

        Notes
        -----
        The state is made at the first call and kept by this object; later calls must give the same shapes in
        the same order.

        On CUDA a list is one launch from its second call on, if its arrays are C-contiguous, of one dtype, on
        one device, and those that are written do not overlap; else there is one per array.  With `clip_norm`
        or `scale` there are three launches.  Nothing waits for the device.

        The same memory twice among the parameters is updated one after the other.
        """
        whole = getattr(grads, "whole", None)  # of `gpumlp.plans.Grads`, whose arrays are parts of one buffer
        if whole is not None:
            params, grads = whole(params, self.by_element and (decay is None or isinstance(decay, bool)))
        if clip_norm is None and scale is None and decay is None and lr is None and zero is False:
            again, t = self._again, self._t + 1
            if again is not None and again(self, t, self.state, params, grads):
                self._t = t
                return
        plist, glist = as_list(params), as_list(grads)
        if len(plist) != len(glist):
            raise ValueError(f"{len(plist)} parameter arrays but {len(glist)} gradient arrays")
        if not plist:
            return
        self.check()
        options = checked(self.lr, len(plist), clip_norm, scale, decay, lr, zero)
        pairs = [open_pair(n, p, g, options.zero) for n, (p, g) in enumerate(zip(plist, glist, strict=True))]
        counted = self._capturable or (self._listed is not None and self._listed.counters is not None)
        if options.plain and not counted and not any(p.half or g.half for p, g in pairs):
            self._update([p.array for p, _ in pairs], [g.array for _, g in pairs], self._t + 1)
            self._t += 1
            return
        fresh = not self.state
        try:
            self._update_with(pairs, options)
        except Exception:
            if fresh:  # nothing was done: other arrays may be given next
                self.state = []
            raise

    def _update_with(self, pairs: list[tuple[Given, Given]], options: Options) -> None:
        """A step with options, or on arrays of 16 bits, or that is counted on the device."""
        backend = backends.backend_of(pairs[0][0].array)
        for number, (p, _) in enumerate(pairs):
            if device_of(p.array) != backend.device:
                raise TypeError(
                    f"params[{number}] is on {device_of(p.array)}, params[0] on {backend.device}; with "
                    "options all arrays of an update must be on one device"
                )
        if self._listed is not None and self._listed.backend is not backend:
            self.t = self.t  # counted on the host again
        counted = self._capturable or options.scale is not None
        if backend.name == "cuda" and counted and (self._listed is None or not self.state):
            check_not_captured(backend)
        self._hold(pairs, backend)
        matrices = any(self.by_matrix(p.array) for p, _ in pairs)
        if backend.name != "cuda" or matrices:
            if backend.name == "cuda" and (counted or self._listed is not None):
                raise ValueError(
                    f"{type(self).__name__}: update() of matrices on {backend.device} counts steps on "
                    "the host, so it takes neither scale nor capturable; divide the gradients before, and "
                    "leave out steps that are not finite"
                )
            self._t += update_each(self, backend, pairs, options)
            return
        if self._listed is None:
            self._listed = Listed(backend)
        if counted:
            self._listed.count(self._t)
            self._again = None
        self._listed.update(self, pairs, options)
        self._t += self._listed.counters is None

    def by_matrix(self, p: Any) -> bool:
        """Whether the rule treats this array as a matrix, not element by element."""
        return False

    def _hold(self, pairs: list[tuple[Given, Given]], backend: Any) -> None:
        """Make or check the state, with a float32 copy of each parameter of 16 bits, on the device."""
        if not self.state:
            held = [p.widened() if p.half else p.array for p, _ in pairs]
            self.init_state(held, backend)
            for entry, (p, _), array in zip(self.state, pairs, held, strict=True):
                if p.half:
                    entry["master"] = array
            return
        self.init_state([p.array for p, _ in pairs], backend)
        for number, (entry, (p, _)) in enumerate(zip(self.state, pairs, strict=True)):
            if p.half and "master" not in entry:
                raise TypeError(
                    f"{type(self).__name__} holds no float32 copy of params[{number}], which is now "
                    f"{p.kind}; use one optimiser object per set of parameters, or call reset()"
                )
        self.move_state(backend)

    def step_one(
        self,
        number: int,
        backend: Any,
        arrays: dict[str, Any],
        values: dict[str, Any],
        factor: Any = None,
        *,
        bare: bool = False,
        zero: bool = False,
    ) -> None:
        """Update one array at once.

        Parameters
        ----------
        number : int
            Which one it is.
        arrays : dict
            g, p and the state.
        values : dict
            Those of the step, by name.
        factor : array (1,), optional
            On the gradient.
        bare : bool
            Without penalties.
        zero : bool
            Clear the gradient.
        """
        kernel = self.kernel(clip=factor is not None, zero=zero, bare=bare)
        given = arrays if factor is None else {**arrays, "clip_scale": factor}
        stepped = {name: float(values[name]) for name in kernel.stepped}
        backend.elementwise(kernel, given, self.scalars(kernel), stepped)

    def _update(self, params: list[Any], grads: list[Any], t: int) -> None:
        """Step `t` on arrays that fit together; the next one may take the fast path."""
        backend = backends.backend_of(params[0])
        self.check()
        self.init_state(params, backend)
        kernel = self.kernel()
        values = self.step_values(t, float(self.lr))
        scalars, stepped = self.scalars(kernel), {name: float(values[name]) for name in kernel.stepped}
        runs = []
        for number, (p, g) in enumerate(zip(params, grads, strict=True)):
            here = backend if number == 0 else backends.backend_of(p)
            entry = self.state[number]
            state = {}
            for name in self.arrays():
                # loaded from a state dict, or moved to another device
                if device_of(entry[name]) != device_of(p):
                    entry[name] = here.asarray(to_numpy(entry[name]))
                state[name] = entry[name]
            arrays = {"g": g, "p": p, **state}
            here.elementwise(kernel, arrays, scalars, stepped)
            runs.append(here.bind(kernel, arrays, scalars, "g"))
        # only if none of them can change but by an assignment
        constant = all(isinstance(getattr(self, f.name), (int, float, str, tuple)) for f in fields(self))
        if constant and all(runs) and all(run.around == runs[0].around for run in runs):  # on one device
            bind = partial(backend.bind_list, kernel, runs, scalars, "g") if len(runs) > 1 else None
            self._again = Again(self, kernel, params, self.state, runs, bind)
