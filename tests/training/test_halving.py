"""`fit_many` with halving: who leaves when, and that who leaves is what a fit that ended there is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from test_many import any_trainer, data, plain, same, side_by_side  # noqa: F401 - a fixture for all tests

import gpumlp
from gpumlp import SuccessiveHalving
from gpumlp.training.halving import get_halving


class TestRungs:
    @pytest.mark.parametrize(
        ("n", "epochs", "options", "expected"),
        [
            (64, 40, {}, [2, 5, 14]),
            (27, 27, {}, [1, 3, 9]),
            (26, 27, {}, [3, 9]),
            (3, 40, {}, [14]),
            (2, 40, {}, []),
            (1, 40, {}, []),
            (64, 1, {}, []),
            (64, 2, {}, [1]),
            (64, 3, {}, [1]),
            (64, 40, {"min_epochs": 5}, [5, 14]),
            (64, 40, {"min_epochs": 6}, [14]),
            (64, 40, {"min_epochs": 15}, []),
            (16, 100, {"factor": 2}, [7, 13, 25, 50]),
            (16, 5, {"factor": 2}, [1, 2, 3]),
            (10, 100, {"factor": 2.5}, [16, 40]),
        ],
    )
    def test_epochs(self, n: int, epochs: int, options: dict, expected: list[int]) -> None:
        assert SuccessiveHalving(**options).rungs(n, epochs) == expected

    @pytest.mark.parametrize("factor", [2, 2.5, 3, 4])
    def test_some_are_left_and_rungs_ascend(self, factor: float) -> None:
        halving = SuccessiveHalving(factor)
        for n in range(1, 70):
            rungs = halving.rungs(n, 10**6)
            assert rungs == sorted(set(rungs)) and all(0 < rung < 10**6 for rung in rungs)
            left = n
            for _ in rungs:
                left = len(halving.stay([0.0] * left))
            assert 1 <= left < factor + 1

    def test_who_stays(self) -> None:
        halving, bad = SuccessiveHalving(3), -math.inf
        assert halving.stay([1.0, 4.0, 2.0, 3.0]) == [1, 3]  # two of four
        assert halving.stay([1.0, 1.0, 1.0, 1.0]) == [0, 1]  # the first of equals
        assert halving.stay([bad, 2.0, bad, bad]) == [1]  # one that diverged takes no free place
        assert halving.stay([bad, bad]) == []


class TestScore:
    def history(self, *values: float, **more: Any) -> gpumlp.History:
        return gpumlp.History({"val_loss": list(values), "val_accuracy": [-v for v in values]}, **more)

    def test_the_best_so_far_and_the_mean_over_folds(self) -> None:
        one, other = self.history(3, 1, 2), self.history(5, 4, math.nan, 3, stopped_early=True)
        assert SuccessiveHalving().score([one]) == -1
        assert SuccessiveHalving().score([one, other]) == -2
        assert SuccessiveHalving(monitor="val_accuracy").score([one, other]) == -2
        assert SuccessiveHalving(mode="max").score([one, other]) == 4

    def test_nothing_is_worse_than_divergence(self) -> None:
        diverged = self.history(1, 0.1, error=gpumlp.DivergenceError("lost"))
        for folds in ([diverged], [self.history(1), diverged], [self.history(math.nan)], [self.history()]):
            assert SuccessiveHalving().score(folds) == -math.inf


def alone(seed: int, device: str, epochs: int, stop: Any, until: int | None, held: Any = 0.25) -> Any:
    """A fit of its own, ended by a callback after `until` epochs."""
    X, y, _ = data()
    end = [] if until is None else [lambda trainer, history: len(history) == until]
    trainer = any_trainer(seed, device, callbacks=end)
    trainer.fit(X, y, epochs=epochs, validation=held, early_stopping=stop, progress=False)
    trainer.callbacks = []
    return trainer


@pytest.mark.parametrize("stop", [None, gpumlp.EarlyStopping(patience=2)])
@pytest.mark.cuda_sample(2)
def test_who_leaves_is_what_a_fit_that_ended_there_is(device: str, stop: Any) -> None:
    X, y, _ = data()
    whole = [alone(seed, device, 9, stop, None) for seed in range(10)]
    trainers = [any_trainer(seed, device) for seed in range(10)]
    histories = gpumlp.fit_many(
        trainers, X, y, epochs=9, validation=0.25, early_stopping=stop, halving=3, progress=False
    )
    in_race = list(range(10))
    reached = dict.fromkeys(in_race, 0)
    ends: dict[int, int | None] = dict.fromkeys(in_race)
    for rung in (1, 3):  # of the figures of fits of their own
        best = {k: min(whole[k].history.val_loss[:rung]) for k in in_race}
        stay = sorted(in_race, key=lambda k: best[k])[: math.ceil(len(in_race) / 3)]
        ends.update({k: rung for k in in_race if k not in stay})
        in_race = stay
        reached.update({k: reached[k] + 1 for k in stay})
    assert [h.rung for h in histories] == list(reached.values())
    for k, trainer in enumerate(trainers):
        same(alone(k, device, 9, stop, ends[k]), trainer)
    k = next(k for k in ends if ends[k] == 1)  # it goes on as that one does
    own = alone(k, device, 9, stop, 1)
    for trainer in (own, trainers[k]):
        trainer.fit(X, y, epochs=2, progress=False)
    same(own, trainers[k])


def test_folds_leave_together_by_their_mean(device: str) -> None:
    """Candidates whose folds are far apart: the mean decides."""
    X, y, _ = data()
    folds = np.array_split(np.arange(150), 3)
    rows = [np.setdiff1d(np.arange(150), fold) for fold in folds]
    held = [(X[fold], y[fold]) for fold in folds]
    labels = [name for name in "abcd" for _ in folds]

    def trainers() -> list[gpumlp.Trainer]:
        return [any_trainer(k // 3 * 5 + k % 3, device) for k in range(12)]

    def run(**more: Any) -> tuple[list[gpumlp.Trainer], list[gpumlp.History]]:
        made = trainers()
        return made, gpumlp.fit_many(
            made, X, y, epochs=8, rows=rows * 4, validation=held * 4, progress=False, **more
        )

    _, whole = run()
    means = [np.mean([min(h.val_loss[:4]) for h in whole[k : k + 3]]) for k in range(0, 12, 3)]
    _, histories = run(halving=SuccessiveHalving(2, min_epochs=4), groups=labels)
    for k, mean in enumerate(means):
        stays = mean in sorted(means)[:2]
        of_k = histories[3 * k : 3 * k + 3]
        assert [h.rung for h in of_k] == [int(stays)] * 3
        assert [len(h) for h in of_k] == [8 if stays else 4] * 3
    _, by_array = run(halving=SuccessiveHalving(2, min_epochs=4), groups=np.repeat([7, 3, 9, 1], 3))
    assert [h.rung for h in by_array] == [h.rung for h in histories]


def test_early_stopped_and_diverged_members(device: str) -> None:
    """A stopped one keeps its place by its best value; a diverged one leaves and takes its folds along."""
    X, y, _ = data()

    def trainer(lr: float, seed: int = 0) -> gpumlp.Trainer:
        model = gpumlp.MLP([6, 8, 3], seed=seed, device=device)
        return gpumlp.Trainer(
            model, loss="softmax_cross_entropy", optimizer=gpumlp.SGD(lr=lr), batch_size=25, seed=seed
        )

    lrs = [0.5, 1e-4, 1e-4, 1e-4, 0.2, 1e38]
    trainers = [trainer(lr) for lr in lrs]
    stops = [gpumlp.EarlyStopping(patience=1, min_delta=10.0), *[None] * 5]  # the first stops after 2 epochs
    histories = gpumlp.fit_many(
        trainers,
        X,
        y,
        epochs=8,
        validation=0.2,
        early_stopping=stops,
        halving=SuccessiveHalving(3, min_epochs=3),
        progress=False,
    )
    assert [len(h) for h in histories] == [2, 3, 3, 3, 8, 0]
    assert [h.rung for h in histories] == [1, 0, 0, 0, 1, 0]
    assert histories[0].stopped_early and isinstance(histories[5].error, gpumlp.DivergenceError)

    folds = [trainer(0.5), trainer(1e38), trainer(1e-4), trainer(1e-4, 1)]
    histories = gpumlp.fit_many(
        folds, X, y, epochs=4, validation=0.2, halving=2, groups=[0, 0, 1, 1], progress=False
    )
    assert [len(h) for h in histories] == [2, 0, 4, 4] and [h.rung for h in histories] == [0, 0, 1, 1]


def test_without_rungs_it_is_a_plain_fit(device: str) -> None:
    X, y, _ = data()
    plainly, halved = ([any_trainer(k, device) for k in range(2)] for _ in range(2))
    gpumlp.fit_many(plainly, X, y, epochs=3, progress=False)
    histories = gpumlp.fit_many(
        halved, X, y, epochs=3, halving=SuccessiveHalving(monitor="loss"), progress=False
    )
    for one, other in zip(plainly, halved, strict=True):
        same(one, other)
    assert [h.rung for h in histories] == [0, 0] and plainly[0].history.rung is None


def test_an_interrupt_between_rungs_leaves_all_at_an_epochs_end(device: str) -> None:
    X, y, _ = data()

    def interrupt(trainer: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 5:
            raise KeyboardInterrupt

    trainers = [any_trainer(k, device, callbacks=[interrupt]) for k in range(9)]
    with pytest.raises(KeyboardInterrupt):
        gpumlp.fit_many(trainers, X, y, epochs=9, validation=0.25, halving=3, progress=False)
    assert sorted(t.history.rung for t in trainers) == [0] * 6 + [1] * 2 + [2]
    for k, trainer in enumerate(trainers):
        own = alone(k, device, 9, None, len(trainer.history))
        same(own, trainer)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"halving": 1.5}, ValueError, r"halving=1.5; expected a number >= 2, or gpumlp.SuccessiveHalving"),
        ({"halving": "fast"}, ValueError, r"halving='fast'"),
        ({"halving": 3}, ValueError, r"trainers\[0\]: halving: .*val_loss.*Give validation data"),
        ({"groups": [0, 0, 1]}, ValueError, "groups .* need halving"),
        ({"halving": 2, "groups": [0, 1], "validation": 0.2}, ValueError, "groups has 2 entries.*3 trainers"),
        ({"halving": 2, "groups": [0, [1], 2], "validation": 0.2}, TypeError, r"groups\[1\]=\[1\]"),
        (
            {"halving": SuccessiveHalving(monitor="val_r2"), "validation": 0.2},
            ValueError,
            r"trainers\[0\]: halving: unknown metric 'val_r2'",
        ),
    ],
)
def test_bad_input_changes_nothing(given: dict, kind: type, message: str) -> None:
    X, y, _ = data()
    trainers = [any_trainer(k, "cpu") for k in range(3)]
    with pytest.raises(kind, match=message):
        gpumlp.fit_many(trainers, X, y, epochs=9, progress=False, **given)
    assert all(plain(t.history)["best"] is None and t.epoch == 0 for t in trainers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1}, "factor=1; expected a finite number >= 2"),
        ({"factor": True}, "factor=True"),
        ({"min_epochs": 0}, "min_epochs=0"),
        ({"monitor": 3}, "monitor=3"),
        ({"mode": "best"}, "mode='best'"),
    ],
)
def test_settings_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuccessiveHalving(**options)


def test_short_forms() -> None:
    assert get_halving(None) is get_halving(False) is None
    assert get_halving(True) == get_halving(3) == get_halving(np.int64(3)) == SuccessiveHalving()
    assert get_halving(SuccessiveHalving(4)) == SuccessiveHalving(4)
