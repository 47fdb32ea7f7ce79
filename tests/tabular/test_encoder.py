"""What a column becomes does not depend on how its cells come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpumlp.tables import as_frame
from gpumlp.tabular.encoder import Encoder, Roles


def learnt(cells: Any, **roles: Any) -> Encoder:
    frame = as_frame({"c": cells})
    return Encoder.fit(frame, np.arange(frame.n_rows), None, Roles(**roles))


def same(encoder: Encoder, *forms: Any) -> None:
    first, *others = (encoder.transform(as_frame({"c": cells})) for cells in forms)
    for other in others:
        np.testing.assert_array_equal(other, first)
    assert np.unique(first, axis=0).shape[0] > 1


@pytest.mark.parametrize("trained", [[1, 2, 3] * 9, [1.0, 2.0, 3.5] * 9, ["1", "2.0", "03"] * 9])
def test_categories_that_are_numbers(trained: list[Any]) -> None:
    """Whole ones beside fractions too; and float32, whose 0.1 is another number than float64's."""
    encoder = learnt(trained, categorical=["c"])
    same(
        encoder, [1, 2, 1], [1.0, 2.0, 1.0], np.array([1, 2, 1], np.int8), ["1", "2", "1"], ["1.0", "02", "1"]
    )
    # another row has a fraction
    assert (
        encoder.transform(as_frame({"c": [1.0, 2.5]}))[:1] == encoder.transform(as_frame({"c": [1]}))
    ).all()
    tenths = learnt([0.1, 0.2] * 9, categorical=["c"])
    same(tenths, [0.1, 0.2], np.array([0.1, 0.2], np.float32), ["0.1", "0.2"])


def test_texts_that_differ_stay_apart() -> None:
    """Where both are known."""
    encoder = learnt(["1.1", "1.10", "7"] * 9)
    same(encoder, ["1.1", "1.10"])
    assert encoder.modes() == {"c": "text"}  # 1.10 would be read as a number
    assert learnt(["a", "b"] * 9).modes() == learnt([1, 2, 5] * 9, categorical=["c"]).modes() == {}


def test_blanks_and_empty_texts() -> None:
    same(learnt(["a", "b", None] * 9), ["a", None, "b"], [" a", "", "b "], ["a", "  ", "b"])


@pytest.mark.parametrize("words", [["7", "0x1F", "-1e3"], ["7.0", " 31", "-1000"]])
def test_numbers_in_texts(words: list[str]) -> None:
    """As in files."""
    same(learnt(np.arange(-1000, 50)), [7, 31, -1000, None], [*words, "n/a"], [*words, None])
    with pytest.raises(ValueError, match="column 'c' has '10_1'; expected numbers"):
        learnt([1, 2, 3]).transform(as_frame({"c": ["1", "10_1"]}))


def test_dates_in_texts() -> None:
    days = np.datetime64("2020-01-01T00:00:00", "us") + np.arange(99) * np.timedelta64(86_400_000_000, "us")
    same(learnt(days), [days[3], days[40], None], ["2020-01-04", "2020-02-10T00:00:00Z", "?"])
    with pytest.raises(ValueError, match="column 'c' has 'soon'; expected dates"):
        learnt(days).transform(as_frame({"c": ["2020-01-04", "soon"]}))


def test_rows_are_encoded_in_parts() -> None:
    """What a row becomes does not depend on the others."""
    rng = np.random.default_rng(0)
    n = 300_000
    frame = as_frame({"c": rng.integers(0, 4, n) / 2, "d": rng.normal(size=n).astype(np.float32)})
    encoder = Encoder.fit(frame, np.arange(1000), None, Roles(categorical=["c"]))
    parts = [encoder.transform(frame.take(rows)) for rows in (slice(7000), slice(7000, n))]
    np.testing.assert_array_equal(encoder.transform(frame), np.concatenate(parts))


def test_texts_that_all_say_dates() -> None:
    """As in files, where a data frame's reader has left them as texts."""
    days = np.datetime64("2020-01-01") + np.arange(90)
    texts = [None if n == 7 else str(day) for n, day in enumerate(days)]
    encoder = learnt(texts)
    assert encoder.kinds() == {"c": "date"}
    days[7] = np.datetime64("NaT")
    same(encoder, texts, days)
    np.testing.assert_array_equal(
        encoder.transform(as_frame({"c": days})), learnt(days).transform(as_frame({"c": days}))
    )
    assert learnt(texts, categorical=["c"]).kinds() == {"c": "category"}
    assert "c" in learnt_with(["x"] * 89, [*texts[:88], "yesterday"]).dropped


def test_texts_that_all_say_numbers() -> None:
    """Numbers where each row has its own, which would be left out as texts; else they may be codes."""
    numbers = np.random.default_rng(0).normal(size=90)
    texts = ["n/a", *map(repr, numbers[1:].tolist())]
    assert learnt(texts).kinds() == {"c": "number"}
    numbers[0] = np.nan
    same(learnt(texts), texts, numbers)
    assert learnt(["01", "2", "3"] * 30).kinds() == {"c": "category"}


def learnt_with(other: list[Any], cells: list[Any]) -> Encoder:
    """Of two columns, so that one may be left out."""
    frame = as_frame({"other": [*other[:-1], "y"], "c": cells})
    return Encoder.fit(frame, np.arange(frame.n_rows), None, Roles())
