"""What is remembered of how long answers took."""

from __future__ import annotations

import pytest

from backhaul.delivery.answer_times import AnswerTimes


def test_a_slow_answer_counts_as_long_as_its_window_whatever_came_since() -> None:
    times = AnswerTimes(15.0)
    times.add(0.4, 100.0)
    for number in range(1_000):
        times.add(0.02, 100.0 + number / 100)
    assert times.spread(110.5) == pytest.approx(0.38)


def test_a_slow_answer_of_long_ago_counts_no_more() -> None:
    times = AnswerTimes(15.0)
    times.add(0.4, 100.0)
    for second in range(101, 140):
        times.add(0.02, second)
    assert times.spread(140.0) == 0.0


def test_without_answers_nothing_differs() -> None:
    assert AnswerTimes(0.0).spread(5.0) == 0.0
