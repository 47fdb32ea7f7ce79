"""Names that a parameter of an estimator may have, as they are registered at the moment, and objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import chain
from typing import Any

from gpumlp.activations import activation_name
from gpumlp.losses import Loss, get_loss

__all__ = ["Names", "loss_of_values", "name_of_activation"]


def name_of_activation(spec: Any) -> str:
    """The name of the parameter `activation`, in scikit-learn's words where it has one."""
    return spec if spec == "logistic" else activation_name(spec)


def loss_of_values(spec: Any) -> tuple[Loss, Any]:
    """The parameter `loss` of a regressor and its constant; ValueError for one of classes."""
    loss, constant = get_loss(spec)
    if loss.metric != "rmse":
        raise ValueError(f"loss={spec!r} is for classes; expected a loss of values")
    return loss, constant


class Names(Set[str]):
    """The names in a registry as it is at the moment, those whose entries `fit`, and `more` names."""

    def __init__(
        self, registry: Mapping[str, Any], *more: str, fit: Callable[[Any], bool] = lambda entry: True
    ) -> None:
        self.registry, self.more, self.fit = registry, more, fit

    def __iter__(self) -> Iterator[str]:
        return chain(self.more, (name for name, entry in self.registry.items() if self.fit(entry)))

    def __contains__(self, name: object) -> bool:
        return any(name == known for known in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @classmethod
    def _from_iterable(cls, names: Iterable[Any]) -> Set[Any]:
        return set(names)  # unions and differences are plain sets
