"""Activations, losses and update rules of one's own: `register`, `check_gradients`; see docs/extending.md."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import sys
from typing import Any

import numpy as np

from gpumlp.activations import ACTIVATIONS, Activation, get_activation, register_activation
from gpumlp.losses import LOSSES, Loss, LossObject, register_loss
from gpumlp.model import MLP
from gpumlp.optimizers import Rule, register_rule
from gpumlp.training.trainer import Trainer
from gpumlp.verify import GradientReport, activation_gradients, compared, loss_gradients, refuse
from gpumlp.verify.differences import STEP

__all__ = ["GradientReport", "check_gradients", "register", "register_named"]

_MOST = 1000  # parameters of a network that are moved; of more, so many are drawn


def register(what: Any, *, check: bool = True, replace: bool = False) -> Any:
    """Make an activation, a loss or an update rule known by its name.

    From then on the name may be given wherever the package's own may: to `MLP`, `Trainer`, the estimators,
    `fit_many`, the command line; and files that need it can be loaded.

    Parameters
    ----------
    what : Activation, Loss, LossObject, or Optimizer
        An object, or its class: so `register` may stand above a class as a decorator.  Of a rule it is the
        class that is registered.  The name is its `name`.
    check : bool
        Compare the derivative with central differences (`check_gradients`); of a rule, try it.  False for a
        gradient that is none on purpose.  The C++ text is compiled and compared with the NumPy reference in
        any case but that of a rule with False.
    replace : bool
        Another thing of that name may have been registered before: in a notebook whose cell is run again.
        Names of the package cannot be replaced.

    Returns
    -------
    The same object or class.

    Raises
    ------
    ValueError
        The name belongs to something else; the derivative is wrong; the text does not compile (with the line
        of the text) or gives other numbers than the reference.  Then nothing has been registered.
    TypeError
        It is none of these, or a part is missing.

    Warns
    -----
    RuntimeWarning
        There is neither a C++ compiler nor a GPU, so that the text was not looked at.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> bent = gpumlp.Activation(
    ...     "bent_identity",
    ...     "C(0.5) * (sqrt(z * z + C(1)) - C(1)) + z",
    ...     "(C(0.5) * z * rsqrt(z * z + C(1)) + C(1))",
    ...     lambda z: 0.5 * (np.sqrt(z * z + 1) - 1) + z,
    ...     lambda z: 0.5 * z / np.sqrt(z * z + 1) + 1,
    ...     needs_z=True,
    ... )
    >>> _ = gpumlp.register(bent)
    >>> gpumlp.MLP([2, 8, 1], "bent_identity", device="cpu").activations
    ['bent_identity']
    """
    options: Any = {"check": check, "replace": replace}
    made: Any = what
    if isinstance(what, type) and issubclass(what, (Activation, Loss, LossObject)):
        try:
            made = made()
        except TypeError as error:
            raise TypeError(f"{what.__name__} cannot be made without arguments ({error})") from None
    if isinstance(made, Activation):
        register_activation(made, **options)
    elif isinstance(made, Loss):
        register_loss(made, **options)
    elif isinstance(made, LossObject):
        register_loss(made.entry(), **options)
    elif isinstance(made, Rule) or (isinstance(made, type) and issubclass(made, Rule)):
        register_rule(made, **options)
    else:
        raise TypeError(
            f"{made!r} cannot be registered; expected a gpumlp.Activation, a gpumlp.Loss, or a class derived "
            "from gpumlp.Optimizer"
        )
    return what


def register_named(place: str, kind: str | None = None) -> str:
    """Register what ``module:name`` stands for, or import ``module``, which may register things itself.

    The module is looked for in the current directory too.

    Parameters
    ----------
    place : str
    kind : str, optional
        "activation", "loss" or "optimizer": what it must be.

    Returns
    -------
    str
        The name under which it is known; "" for a module alone.
    """
    module, _, name = place.partition(":")
    here = ""  # the current directory
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{place!r}: the module {module!r} cannot be imported ({why})") from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    for part in filter(None, name.split(".")):
        if not hasattr(found, part):
            raise ValueError(f"{place!r}: {module!r} has no {name!r}")
        found = getattr(found, part)
    if not name:
        return ""
    kinds: dict[str, Any] = {"activation": Activation, "loss": (Loss, LossObject), "optimizer": Rule}
    known = found if isinstance(found, type) else type(found)
    if kind is not None and not issubclass(known, kinds[kind]):
        raise ValueError(f"{place!r} is {found!r}; expected the {kind} that is to be used")
    try:
        register(found)
        if isinstance(found, type) and not issubclass(found, Rule):
            found = found()
    except TypeError as error:
        raise ValueError(f"{place!r}: {error}") from error
    return str(found.entry().name if isinstance(found, LossObject) else found.name)


def check_gradients(
    what: Any,
    X: Any = None,
    y: Any = None,
    sample_weight: Any = None,
    *,
    loss: Any = None,
    tolerance: float = 1e-6,
) -> GradientReport:
    """Compare derivatives with central differences, in float64.

    Parameters
    ----------
    what : Activation, Loss, LossObject, name of one, Trainer, or MLP
        Of a `Trainer` (or an `MLP` with `loss`) the gradient of the objective with respect to the parameters
        is compared, penalties included, by the code that `step` runs, on a float64 copy of the model on its
        device.  Of more than 1000 parameters 1000 are drawn.
    X, y, sample_weight : arrays
        The rows for a network.  For an activation X, and for a loss X and y, may be given: where to look;
        there X are the network's outputs.
    loss : optional
        As for `Trainer`; for an `MLP`.
    tolerance : float
        Errors up to this one, relative to derivatives above 1, are taken for rounding.

    Returns
    -------
    GradientReport
        The worst error and where it is.

    Raises
    ------
    ValueError
        An error is larger than `tolerance`; the message says where.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> gpumlp.check_gradients("tanh").good
    True
    >>> X, y = np.linspace(-1, 1, 12).reshape(6, 2), np.arange(6) % 2
    >>> model = gpumlp.MLP([2, 3, 2], "tanh", device="cpu")
    >>> gpumlp.check_gradients(model, X, y, loss="softmax_cross_entropy").error < 1e-6
    True
    """
    if isinstance(what, str):
        if what not in ACTIVATIONS and what not in LOSSES:
            raise ValueError(f"{what!r} is neither a known activation nor a known loss")
        what = get_activation(what) if what in ACTIVATIONS else LOSSES[what]
    kind: Any = what
    if isinstance(what, type) and issubclass(what, (Activation, Loss, LossObject)):
        what = kind()
    if isinstance(what, LossObject):
        what = what.entry()
    if isinstance(what, Activation):
        return refuse(activation_gradients(what, X, tolerance))
    if isinstance(what, Loss):
        return refuse(loss_gradients(what, X, y, tolerance))
    if isinstance(what, MLP):
        if loss is None:
            raise ValueError("check_gradients of an MLP needs loss=...")
        what = Trainer(what, loss=loss, optimizer="sgd")
    if not isinstance(what, Trainer):
        raise TypeError(
            f"check_gradients was given {what!r}; expected an activation, a loss, a Trainer, or "
            "an MLP with loss=..."
        )
    if X is None or y is None:
        raise ValueError("check_gradients of a network needs rows: check_gradients(trainer, X, y)")
    return refuse(_network_gradients(what, X, y, sample_weight, tolerance))


def _network_gradients(trainer: Trainer, X: Any, y: Any, w: Any, tolerance: float) -> GradientReport:
    double = _in_double(trainer)
    flat = double.model.flattened(double.model.get_parameters())
    analytic = double.model.flattened(double.loss_and_grads(X, y, w)[1])
    numbers = _numbers(double.model)
    chosen = np.flatnonzero(numbers >= 0)
    if len(chosen) > _MOST:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _MOST, replace=False))

    def loss_at(place: int, value: float) -> float:
        moved = flat.copy()
        moved[place] = value
        double.model.set_parameters(double.model.unflattened(moved))
        return float(double.loss_and_grads(X, y, w)[0])

    middle = float(double.loss_and_grads(X, y, w)[0])
    steps = STEP * np.maximum(1, np.abs(flat[chosen]))
    each = list(zip(chosen.tolist(), steps, strict=True))
    left = np.array([(middle - loss_at(n, flat[n] - h)) / h for n, h in each])
    right = np.array([(loss_at(n, flat[n] + h) - middle) / h for n, h in each])

    def place(n: int) -> str:
        return _place(double.model, int(numbers[chosen[n]]))

    return compared(f"{trainer!r}", analytic[chosen], left, right, place, tolerance)


def _in_double(trainer: Trainer) -> Trainer:
    """A float64 copy, whose model is a copy too."""
    model = trainer.model
    double = MLP(
        model.layer_sizes,
        model.activations,
        dropout=model.dropout,
        init=0.0,
        dtype="float64",
        device=model.backend,
        embedding=model.embedding,
    )
    double.set_parameters(model.get_parameters())
    rule = copy.deepcopy(trainer.optimizer)
    t = rule.t
    rule.reset()
    rule.t = t  # dropout's masks depend on it
    same = Trainer(double, loss=_loss_of(trainer), optimizer=rule, seed=trainer.seed)
    same.optimizer.t = t
    return same


def _loss_of(trainer: Trainer) -> Any:
    objective = trainer.objective
    return (
        objective.loss
        if objective.loss.delta is None
        else dataclasses.replace(objective.loss, delta=objective.delta)
    )


def _numbers(model: MLP) -> np.ndarray:
    """For each element of the flat buffer, which of the parameters it is; -1 for padding."""
    start, filled = 1, list[Any]()
    for part in model.get_parameters():
        numbered = {}
        for name, array in _named(part):
            numbered[name] = np.arange(start, start + array.size, dtype=float).reshape(array.shape)
            start += array.size
        filled.append(numbered if isinstance(part, dict) else tuple(numbered.values()))
    return model.flattened(filled).astype(np.int64) - 1


def _named(part: Any) -> list[tuple[str, np.ndarray]]:
    """The arrays of a layer, or of an embedding, by name."""
    return list(part.items() if isinstance(part, dict) else zip(("weights", "biases"), part, strict=True))


def _place(model: MLP, number: int) -> str:
    """Where parameter `number` is."""
    for layer, part in enumerate(model.get_parameters()):
        for name, array in _named(part):
            if number < array.size:
                at = ", ".join(map(str, np.unravel_index(number, array.shape)))
                whole = f"embedding_parameters[{name!r}]" if isinstance(part, dict) else f"{name}[{layer}]"
                return f"{whole}[{at}]"
            number -= array.size
    raise IndexError(f"there is no parameter {number}")
