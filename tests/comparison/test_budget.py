"""How many epochs fit into a given time."""

from __future__ import annotations

import pytest
from heard import Heard

from vidfuse.comparison.budget import RESERVE, Budgets, Estimate, announce, format_duration
from vidfuse.comparison.plan import Candidate
from vidfuse.errors import UserError

MEAN, LSTM = Candidate("mean", "any", 1), Candidate("lstm", "any", 2)
ESTIMATE = Estimate({MEAN: 0.1, LSTM: 0.5}, {MEAN: 10, LSTM: 20}, jobs=2)


def test_an_epoch_of_all_fits():
    assert ESTIMATE.seconds(1) == pytest.approx(RESERVE * (0.1 * 10 + 0.5 * 20) / 2)
    assert ESTIMATE.seconds(8) == pytest.approx(8 * ESTIMATE.seconds(1))


def test_the_most_epochs_that_fit():
    once = ESTIMATE.seconds(1)
    assert ESTIMATE.epochs_within(7.5 * once, most=50) == 7
    assert ESTIMATE.epochs_within(1000 * once, most=50) == 50
    with pytest.raises(UserError, match=r"too small: one epoch of every fit takes about 6 s"):
        ESTIMATE.epochs_within(0.9 * once, most=50)


def test_numbers_are_kept(tmp_path):
    budgets = Budgets(tmp_path / "budgets.json")
    assert budgets.find("a") is None
    budgets.keep("a", 7)
    budgets.keep("b", 8)
    assert (budgets.find("a"), budgets.find("b")) == (7, 8)
    budgets.path.write_text("{torn")
    assert budgets.find("a") is None


def test_what_is_said_beforehand():
    heard = Heard()
    announce(40, 50, ESTIMATE, heard)
    assert (heard.infos, heard.warnings) == (
        ["30 fits of 40 epochs in 2 processes: about 4 min"],
        [],
    )
    announce(3, 50, ESTIMATE, heard)
    assert (len(heard.infos), len(heard.warnings)) == (2, 1)
    assert "3 epochs are few" in heard.warnings[0]
    announce(3, 3, ESTIMATE, heard)  # somebody wants so few
    assert (len(heard.infos), len(heard.warnings)) == (3, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.05, "0.05 s"), (3.2, "3 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
