"""Callbacks between steps: what they see, and that nothing changes by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.callbacks import EverySteps

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 3))  # five steps of 16 rows, the last one of 6
Y = X.sum(axis=1) + 0.1 * RNG.normal(size=70)
W = RNG.uniform(0.5, 2, 70)


def trainer(device: str, callbacks: list[Any], seed: int = 0, **options: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP([3, 8, 4, 1], "tanh", dropout=0.2, device=device, dtype="float64", seed=seed)
    given = {"loss": "squared_error", "optimizer": gpumlp.Adam(lr=0.01), "batch_size": 16, **options}
    return gpumlp.Trainer(model, callbacks=callbacks, seed=seed, **given)


def host(one: gpumlp.Trainer) -> np.ndarray:
    return one.model.backend.to_numpy(one.model.flat)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_parameters_and_history_are_the_same_to_the_bit(device: str, streaming: bool, average: float) -> None:
    seen: dict[int, list[tuple[int, int, int]]] = {3: [], 2: [], 10: []}

    def look(every: int) -> EverySteps:
        def function(own: gpumlp.Trainer, step: Any) -> None:
            seen[every].append((step.number, step.epoch, own.optimizer.t))

        return EverySteps(every, function, norms=every == 3)

    plain = trainer(device, [], average=average)
    hooked = trainer(device, [look(every) for every in seen], average=average)
    options = {"epochs": 4, "validation": (X[:9], Y[:9]), "progress": False, "streaming": streaming}
    first, second = plain.fit(X, Y, **options), hooked.fit(X, Y, **options)
    assert np.array_equal(host(plain), host(hooked))
    assert (first.loss, first.val_loss) == (second.loss, second.val_loss)
    assert hooked.optimizer.t == 20
    for every, calls in seen.items():
        assert calls == [(t, (t - 1) // 5 + 1, t) for t in range(every, 21, every)]


@pytest.mark.parametrize("streaming", [False, True])
def test_loss_rate_and_norms_are_those_of_the_steps(device: str, streaming: bool) -> None:
    """Against the same steps done one by one."""
    steps: list[Any] = []

    def look(own: gpumlp.Trainer, step: Any) -> None:
        norms = step.grad_norms, step.update_norms, step.weight_norms
        steps.append((step.number, step.lr, step.loss, step.layers, *norms))

    options: dict[str, Any] = {"schedule": lambda t, total: 1 / (1 + t), "clip_norm": 0.01, "l2": 0.1}
    trainer(device, [EverySteps(2, look, norms=True)], **options).fit(
        X, Y, epochs=1, sample_weight=W, progress=False, streaming=streaming
    )
    assert [step[0] for step in steps] == [2, 4]

    single = trainer(device, [], **options)
    orders = np.random.default_rng([0, 1, 0]).permutation(70)
    scale, losses, mass = W / W.mean(), [], []
    for n in range(4):
        rows = orders[16 * n : 16 * n + 16]
        before = single.model.get_parameters()
        single.optimizer.l2 = 0.0  # not part of what is told
        loss, grads = single.loss_and_grads(X[rows], Y[rows], scale[rows])
        single.optimizer.l2 = 0.1
        single.step(X[rows], Y[rows], scale[rows])
        losses.append(loss)
        mass.append(scale[rows].sum())
        if n % 2 == 0:
            continue
        after = single.model.get_parameters()
        _, lr, mean, layers, *norms = steps[n // 2]
        assert layers == ["layer 1", "layer 2", "layer 3"]
        assert lr == 0.01 / (1 + n)
        close(np.array(mean), np.average(losses[-2:], weights=mass[-2:]), "figures")
        pairs = [
            [tuple(a - b for a, b in zip(p, q, strict=True)) for p, q in zip(after, before, strict=True)]
        ]
        for told, arrays in zip(norms, [grads, *pairs, after], strict=True):
            own = [np.sqrt(sum(float(np.square(a).sum()) for a in layer)) for layer in arrays]
            close(np.array(told), own, "figures")


def test_an_embedding_is_the_last_layer(device: str) -> None:
    seen: list[Any] = []
    look = EverySteps(1, lambda own, step: seen.append((step.layers, step.weight_norms)), norms=True)
    embedding = gpumlp.Embedding("cosine", 2)
    model = gpumlp.MLP([3, 4, 1], "tanh", embedding=embedding, device=device, dtype="float64")
    gpumlp.Trainer(model, loss="huber", optimizer="sgd", callbacks=[look]).fit(X, Y, epochs=1, progress=False)
    layers, norms = seen[0]
    own = [np.concatenate([np.ravel(v) for v in model.get_parameters()[-1].values()])]
    assert layers == ["layer 1", "layer 2", "embedding"]
    close(np.array(norms[2]), np.linalg.norm(own), "figures")


def test_many_members(device: str) -> None:
    """Members with and without such callbacks, which are called in this thread."""
    import threading

    def looking(told: list[Any]) -> EverySteps:
        def look(own: gpumlp.Trainer, step: Any) -> None:
            assert threading.current_thread() is threading.main_thread()
            told.append((own.seed, step.number, step.loss, step.update_norms))

        return EverySteps(4, look, norms=True)

    seen: list[Any] = []
    members = [trainer(device, [looking(seen)] if seed % 2 else [], seed) for seed in range(4)]
    gpumlp.fit_many(members, X, Y, epochs=3, progress=False)
    told: list[Any] = []
    for seed, member in enumerate(members):
        alone = trainer(device, [looking(told)] if seed % 2 else [], seed)
        alone.fit(X, Y, epochs=3, progress=False)
        if device.startswith("cuda"):
            close(host(member), host(alone), "100 steps")
        else:
            assert np.array_equal(host(member), host(alone))
    assert sorted(seen) == told
    assert [call[:2] for call in told] == [(k, t) for k in (1, 3) for t in (4, 8, 12)]


def test_the_end_comes_after_the_epoch(device: str) -> None:
    one = trainer(device, [EverySteps(3, lambda own, step: step.number == 6)])
    assert len(one.fit(X, Y, epochs=9, progress=False)) == 2
    assert one.optimizer.t == 10


def test_an_exception_leaves_the_count_right(device: str) -> None:
    def fail(own: Any, step: Any) -> None:
        raise KeyError("no")

    one = trainer(device, [EverySteps(7, fail)])
    with pytest.raises(KeyError, match="no"):
        one.fit(X, Y, epochs=3, progress=False)
    assert (one.optimizer.t, one.epoch) == (7, 1)


def test_the_model_cannot_be_moved_between_steps(device: str) -> None:
    other = "native" if device == "numpy" else "numpy"
    one = trainer(device, [EverySteps(7, lambda own, step: own.model.to(other) and None)])
    with pytest.raises(RuntimeError, match=r"has moved the model.*in a callback after an epoch"):
        one.fit(X, Y, epochs=3, progress=False)


def test_what_cannot_be_asked() -> None:
    kept: list[Any] = []
    trainer("numpy", [EverySteps(5, lambda own, step: kept.append(step))]).fit(X, Y, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"norms were not asked for: EverySteps\(n, function, norms=True\)"):
        _ = kept[0].grad_norms
    with pytest.raises(ValueError, match="while its callback runs"):
        _ = kept[0].loss
    with pytest.raises(ValueError, match="EverySteps: every=0; expected an integer >= 1"):
        EverySteps(0, print)
    with pytest.raises(TypeError, match="function=3; expected a function of the trainer and a Step"):
        EverySteps(1, 3)  # type: ignore[arg-type]
