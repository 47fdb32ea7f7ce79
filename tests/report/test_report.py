"""The report: what is in it, that it needs nothing else, and its numbers."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import gpumlp
from gpumlp.report import report_html, write_report
from gpumlp.report.judge import Answers, calibration, figures, importances
from gpumlp.tables import as_frame


def table(n: int = 160) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n))
    b[:9] = np.nan
    city = np.array(["Paris", "Rome <b>", "Oslo", None], object)[rng.integers(0, 4, n)]
    day = np.datetime64("2024-01-01") + rng.integers(0, 500, n).astype("timedelta64[D]")
    X = {"income €": a, "city": city, "age": b, "day": day, "same": np.ones(n)}
    return X, np.where(a + (city == "Paris") > 0.3, "yes & no", "no")


@pytest.fixture(scope="module")
def classifier() -> Any:
    X, y = table()
    return gpumlp.TabularClassifier(quality="fast", n_networks=2, random_state=0, device="cpu").fit(X, y)


class Tags(HTMLParser):
    """Checks that what is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.sections.append(data)


def test_a_page_of_a_classifier(classifier: Any, tmp_path: Path) -> None:
    X, y = table()
    write_report(tmp_path / "r.html", classifier, X, y, title="People & <towns>")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and tags.links == [], "it needs another file"
    assert tags.sections == [
        "Figures",
        "What was noticed",
        "Learning curves",
        "Confusion matrix",
        "Calibration",
        "What the columns are worth",
        "Columns",
        "Networks",
        "Settings and versions",
    ]
    assert "People &amp; &lt;towns&gt;" in text and "Rome &lt;b&gt;" in text and "<b>" not in text
    assert "income €" in text and "2024-01-" in text and "T00:00" not in text
    assert text == report_html(classifier, X, y, title="People & <towns>"), "not the same twice"
    accuracy = f"{classifier.score(X, y):.5g}"
    assert re.search(rf"accuracy</td><td class=\"n\">{accuracy}<", text)


def test_a_page_of_a_regressor() -> None:
    X, _ = table()
    y = 3 * X["income €"]
    model = gpumlp.TabularRegressor(quality="fast", random_state=0, device="cpu").fit(X, y)
    text = report_html(model, X, y)
    assert "Predicted against true" in text and "Confusion" not in text
    rmse = float(np.sqrt(np.mean((model.predict(X) - y) ** 2)))
    assert f">{rmse:.5g}<" in text


def test_figures_are_those_of_scikit_learn() -> None:
    from sklearn import metrics

    rng = np.random.default_rng(1)
    p = rng.dirichlet([1, 1], 60).round(2)  # with ties
    y, w = np.array(["a", "b"])[rng.integers(0, 2, 60)], rng.random(60)
    found = np.array(["a", "b"])[p.argmax(axis=1)]
    p = p / p.sum(axis=1, keepdims=True)
    mine = figures(Answers(y, found, p, np.array(["a", "b"])), w)
    assert mine["accuracy"] == pytest.approx(metrics.accuracy_score(y, found, sample_weight=w))
    assert mine["log_loss"] == pytest.approx(metrics.log_loss(y, p, sample_weight=w))
    area = metrics.roc_auc_score(y == "b", p[:, 1], sample_weight=w)
    assert mine["auc"] == pytest.approx(area)
    p, y = rng.dirichlet([1, 1, 1, 1], 60), rng.integers(0, 4, 60)
    mine = figures(Answers(y, p.argmax(axis=1), p, np.arange(4)), w)
    area = metrics.roc_auc_score(y, p, multi_class="ovr", sample_weight=w)
    assert mine["auc"] == pytest.approx(area)
    values, answers = rng.normal(size=60), rng.normal(size=60)
    mine = figures(Answers(values, answers), w)
    assert mine["r2"] == pytest.approx(metrics.r2_score(values, answers, sample_weight=w))
    assert mine["rmse"] == pytest.approx(metrics.mean_squared_error(values, answers, sample_weight=w) ** 0.5)


def test_calibration_has_all_rows(classifier: Any) -> None:
    X, y = table()
    p = classifier.predict_proba(X)
    bins = calibration(Answers(y, classifier.predict(X), p, classifier.classes_))
    assert sum(n for _, _, n in bins) == len(y) and len(bins) == 10
    assert sum(said * n for said, _, n in bins) / len(y) == pytest.approx(p.max(axis=1).mean())
    assert sum(true * n for _, true, n in bins) / len(y) == pytest.approx(classifier.score(X, y))


def test_importances(classifier: Any) -> None:
    X, y = table()
    what, found = importances(classifier, as_frame(X), y)
    assert what == "accuracy" and found[0].column == "income €" and found[0].mean > 0.1
    assert {one.column: one.mean for one in found}["same"] == 0
    assert sorted(one.column for one in found) == sorted(X)
