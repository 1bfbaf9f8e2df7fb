"""How far answers are apart, in numbers that can be read."""

from __future__ import annotations

import numpy as np
import pytest

from optimum_fixedshape.distances import Distance, fidelity_text

LOGITS = np.float32([[0, 1], [3, 2], [0, 4]])


def test_logits_tell_how_many_answers_changed_and_what_a_difference_is_to_be_read_against():
    distance = Distance()
    distance.add("logits", LOGITS, LOGITS + np.float32([[0, 0], [-2, 0], [0, 0.5]]))
    distance.add("logits", LOGITS[:1], LOGITS[:1])
    assert distance.largest == 2
    everything = np.concatenate([LOGITS, LOGITS[:1]])
    assert distance.facts() == pytest.approx({"spread": everything.std(), "answers_changed": 1 / 4})


def test_embeddings_tell_the_direction_that_changed_the_most():
    distance = Distance()
    distance.add("last_hidden_state", np.float32([[1, 0], [0, 2]]), np.float32([[1, 1], [0, 3]]))
    assert distance.facts()["lowest_cosine"] == pytest.approx(0.5**0.5)
    assert "answers_changed" not in distance.facts()


@pytest.mark.parametrize(
    ("exact", "found"),
    [(np.array([1, 2]), np.array([1, 5])), ([{0: 0.5}], [{0: 0.4}]), (np.zeros((0, 3)), np.zeros((0, 3)))],
    ids=["integers", "no arrays", "nothing"],
)
def test_what_has_no_spread_has_no_facts(exact, found):
    distance = Distance()
    distance.add("logits", exact, found)
    assert distance.facts() == {}


def test_numbers_that_are_not_finite_have_no_part_in_the_spread():
    distance = Distance()
    distance.add("scores", np.array([1.0, np.inf, np.nan, 3.0]), np.array([1.0, np.inf, np.nan, 3.0]))
    assert (distance.largest, distance.facts()) == (0, {"spread": 1})


def test_facts_in_words():
    facts = {"spread": 1.234, "answers_changed": 0.0312, "lowest_cosine": 0.99871}
    assert fidelity_text(facts) == "numbers of spread 1.2, 3.1% of answers changed, lowest cosine 0.9987"
    assert fidelity_text({}) == ""
