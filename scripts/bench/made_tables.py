"""Tables made by formulas, of kinds that scikit-learn's own sets lack: (X, y, classes) of each, by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["MADE"]


def friedman(rng: np.random.Generator, n: int = 4000) -> tuple[np.ndarray, np.ndarray, bool]:
    """Friedman's first: products, squares and lines of 5 of 10 columns, with noise."""
    X = rng.uniform(size=(n, 10))
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]
    return X, y + rng.normal(size=n), False


def robot_arm(rng: np.random.Generator, n: int = 6000) -> tuple[np.ndarray, np.ndarray, bool]:
    """How far the end of an arm with 8 joints is from a point: smooth, hardly any noise."""
    X = rng.uniform(-np.pi / 2, np.pi / 2, (n, 8))
    at, turned = np.zeros((n, 3)), np.tile(np.eye(3), (n, 1, 1))
    for joint, length in enumerate([0.3, 0.25, 0.25, 0.2, 0.2, 0.15, 0.1, 0.1]):
        axis, one, two = (np.array([0, 1, 2]) + joint) % 3
        turn = np.zeros((n, 3, 3))
        turn[:, axis, axis] = 1
        turn[:, one, one] = turn[:, two, two] = np.cos(X[:, joint])
        turn[:, two, one] = np.sin(X[:, joint])
        turn[:, one, two] = -turn[:, two, one]
        turned = turned @ turn
        at += turned[:, :, one] * length
    return X, np.sqrt(((at - 0.4) ** 2).sum(axis=1)) + 0.02 * rng.normal(size=n), False


def hourly_demand(rng: np.random.Generator, n: int = 8000) -> tuple[np.ndarray, np.ndarray, bool]:
    """Counts by hour, day of the week, season, temperature and rain, with a trend."""
    hours = np.sort(rng.choice(17_500, n, replace=False))
    hour, day = hours % 24, hours // 24
    weekday, year_day = day % 7, day % 365
    temperature = 12 - 10 * np.cos(2 * np.pi * (year_day - 20) / 365) + rng.normal(0, 3, n)
    rain = rng.random(n) < 0.12
    work = np.exp(-((hour - 8) ** 2) / 3) + 1.2 * np.exp(-((hour - 17.5) ** 2) / 4) + 0.25 * (hour > 6)
    shape = np.where(weekday < 5, work, 0.9 * np.exp(-((hour - 14) ** 2) / 18))
    rate = 400 * shape / (1 + np.exp((8 - temperature) / 6)) * np.where(rain, 0.45, 1)
    y = rng.poisson(rate * (1 + 0.35 * hours / 17_500) + 8) * np.exp(rng.normal(0, 0.12, n))
    X = np.column_stack([hour, weekday, year_day // 31, day // 365, temperature.round(1), rain])
    return X, y, False


def land_cover(rng: np.random.Generator, n: int = 8000) -> tuple[np.ndarray, np.ndarray, bool]:
    """7 classes by height, slope, distances and 30 flags of soils."""
    height = 1900 + rng.gamma(20, 30, n) + rng.normal(0, 300, n)
    aspect, slope = rng.uniform(0, 360, n), rng.gamma(2, 7, n)
    far = [rng.gamma(2, 1000, n) for _ in range(3)]
    soil = np.digitize(height + rng.normal(0, 250, n), np.linspace(1900, 3100, 29))
    chance = rng.gumbel(size=(n, 7)) / 2.5 + rng.normal(0, 0.7, (30, 7))[soil]
    for k, best in enumerate([3000, 2850, 2400, 2200, 2750, 2450, 3300]):
        chance[:, k] -= ((height - best) / 220) ** 2
        chance[:, k] += 0.8 * np.sin(aspect / 57 + k) * (slope > 12) + 0.5 * np.cos(
            (far[0] + k * far[1]) / 900
        )
    X = np.column_stack([height, aspect, slope, *far, soil[:, None] == np.arange(30)])
    return X.round(), chance.argmax(axis=1), True


def rare_class(rng: np.random.Generator, n: int = 6000) -> tuple[np.ndarray, np.ndarray, bool]:
    """4 % of the rows are of one class, by products and sizes of 4 of 12 columns."""
    X = rng.normal(size=(n, 12))
    score = X[:, 0] * X[:, 1] + np.abs(X[:, 2]) + 0.7 * X[:, 3] + 0.5 * rng.normal(size=n)
    return X, (score > np.quantile(score, 0.96)).astype(int), True


def steps(rng: np.random.Generator, n: int = 4000) -> tuple[np.ndarray, np.ndarray, bool]:
    """A sum of boxes: what trees are made for."""
    X, y = rng.uniform(size=(n, 10)), np.zeros(n)
    for _ in range(12):
        columns = rng.choice(10, 3, replace=False)
        y += rng.normal() * (X[:, columns] > rng.uniform(0.2, 0.8, 3)).all(axis=1)
    return X, y + 0.15 * y.std() * rng.normal(size=n), False


MADE: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, bool]]] = {
    make.__name__: make for make in (friedman, robot_arm, hourly_demand, land_cover, rare_class, steps)
}
