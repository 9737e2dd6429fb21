"""A planted utility is found by asking; what is asked depends on nothing but the course."""

import dataclasses
import json

import numpy as np
import pytest

from compensation import utility
from compensation.preference import (
    Comparison,
    Course,
    answered,
    catch_trials,
    estimate,
    propose,
    to_dict,
)

KNOWN = ((0.2, 0.3), (0.8, 0.4), (0.5, 0.9), (0.3, 0.7))
BEST = np.array([0.65, 0.5])


def course(seed: int = 0, **changes) -> Course:
    return Course(KNOWN, seed, **changes)


def worth(theta) -> float:
    """A bowl that is steeper along one dimension; a difference of 1 is just heard."""
    return -float(((np.asarray(theta) - BEST) ** 2) @ [60.0, 15.0])


def listen(pair: Comparison, draw: np.random.Generator, lapses: float = 0.0) -> str:
    """Answers with choice noise; "same" where the difference is small."""
    if draw.uniform() < lapses:
        return ("first", "second", "same")[draw.integers(3)]
    difference = worth(pair.first) - worth(pair.second) + draw.standard_normal()
    if abs(difference) < 0.5:
        return "same"
    return "first" if difference > 0 else "second"


def fitted(seed: int, answers: int, lapses: float = 0.0) -> Course:
    found, draw = course(seed), np.random.default_rng([seed, 9])
    for _ in range(answers):
        pair = propose(found)
        found = answered(found, pair, listen(pair, draw, lapses))
    return found


@pytest.fixture(scope="module")
def courses() -> list[Course]:
    """Of several seeds; one answer in ten is a lapse."""
    return [fitted(seed, 20, lapses=0.1) for seed in range(4)]


def test_a_planted_taste_is_found_in_spite_of_lapses(courses):
    before = worth(estimate(course()).theta)
    after = [worth(estimate(one).theta) for one in courses]
    assert np.median(after) > -0.6
    assert np.median(after) > before / 3


def test_what_is_uncertain_becomes_certain_and_the_deviation_is_honest(courses):
    before, after = estimate(course()), [estimate(one) for one in courses]
    assert np.median([found.gain for found in after]) < before.gain / 2
    left = np.median([found.deviation for found in after], 0)
    assert (left < 0.6 * np.array(before.deviation)).all()
    away = np.array([np.abs(np.subtract(f.theta, BEST)) / f.deviation for f in after])
    assert np.median(away) < 2


def test_a_course_ends_once_nothing_is_left_to_gain():
    assert not estimate(course()).finished
    clear, draw = course(), np.random.default_rng(0)
    for _ in range(40):
        pair = propose(clear)
        clear = answered(clear, pair, listen(pair, draw))
        found = estimate(clear)
        if found.finished:
            break
    assert found.finished
    assert len(clear.comparisons) >= 20
    assert worth(found.theta) > -1.5


def test_a_course_of_few_answers_never_ends():
    found = course()
    for _ in range(8):
        found = answered(found, propose(found), "same")
    assert not estimate(found).finished


@pytest.mark.parametrize("parameters", [1, 3, 6])
def test_proposals_are_unanswered_different_and_in_the_box(parameters):
    known = tuple(map(tuple, np.random.default_rng(1).uniform(size=(5, parameters)).tolist()))
    found = Course(known, 3)
    for answer in ("first", "second", "same"):
        pair = propose(found)
        assert pair.answer is None
        assert not pair.catch
        assert pair.first != pair.second
        assert all(0 <= value <= 1 for value in pair.first + pair.second)
        found = answered(found, pair, answer)
    assert len(estimate(found).theta) == len(estimate(found).deviation) == parameters


def test_the_first_pair_is_near_the_known_listeners():
    near = ((0.1, 0.15), (0.2, 0.1), (0.15, 0.2))
    pairs = [propose(Course(near, seed)) for seed in range(5)]
    assert np.median([pair.first + pair.second for pair in pairs]) < 0.4


def test_a_guess_is_where_a_course_starts():
    guess = (0.9, 0.1)
    found, open_to_all = estimate(course(start=guess)), estimate(course())
    assert np.abs(np.subtract(found.theta, guess)).max() < 0.15
    assert max(found.deviation) < max(open_to_all.deviation)


def test_where_errors_are_not_heard_nobody_asks():
    deaf_to_second = ((1.0, 0.0), (0.0, 0.01))
    asked = np.array(
        [
            np.abs(np.subtract(pair.first, pair.second))
            for seed in range(8)
            for pair in [propose(course(seed, curvature=deaf_to_second))]
        ]
    )
    prior = utility.Prior.around(np.array(KNOWN), curvature=np.array(deaf_to_second))
    bowl = prior.steepness @ prior.steepness.T
    assert bowl[0, 0] > 5 * bowl[1, 1]
    assert np.median(asked[:, 0]) > np.median(asked[:, 1])


def test_the_expected_bowl_is_of_one_size_whatever_its_shape():
    known = np.array(KNOWN)
    spread = known - known.mean(0)
    covariance = spread.T @ spread / len(known) + utility.WIDENING**2 * np.eye(2)
    for shape in (None, np.diag([1.0, 3.0]), 1e4 * np.array([[1.0, 0.5], [0.5, 2.0]])):
        root = utility.Prior.around(known, curvature=shape).steepness
        assert np.trace(root @ root.T @ covariance) == pytest.approx(1.0)


def test_the_same_course_gives_the_same_pair_and_another_seed_another():
    first = [propose(course(7)) for _ in range(2)]
    course_again = answered(course(7), first[0], "first")
    assert first[0] == first[1]
    assert propose(course_again) == propose(dataclasses.replace(course_again))
    assert propose(course(8)) != first[0]


def test_the_next_pair_can_be_had_ahead_for_every_answer():
    pair = propose(course())
    ahead = {a: propose(answered(course(), pair, a)) for a in ("first", "second", "same")}
    assert len(set(ahead.values())) == 3
    assert propose(answered(course(), pair, "second")) == ahead["second"]


def test_no_time_means_a_spread_pair_at_once():
    hurried = [propose(course(seed), limit_s=0.0) for seed in range(4)]
    assert len(set(hurried)) == 4
    assert hurried[0] == propose(course(0), limit_s=0.0)
    assert all(0 <= value <= 1 for pair in hurried for value in pair.first + pair.second)
    assert answered(course(), hurried[0], "same").comparisons[0].answer == "same"


def test_same_brings_the_two_closer_and_sides_with_neither():
    pair = Comparison((0.3, 0.5), (0.7, 0.5))
    utilities = {}
    for answer in ("first", "same", "second"):
        answers = np.array([utility.ANSWERS.index(answer)] * 3)
        ends = [np.array([end] * 3) for end in (pair.first, pair.second)]
        prior = utility.Prior.around(np.array(KNOWN))
        found = utility.posterior(prior, *ends, answers, np.random.default_rng(0))
        utilities[answer] = found.utilities(np.array([pair.first, pair.second])) @ [1, -1]
    assert utilities["first"].mean() > 1
    assert utilities["second"].mean() < -1
    assert np.abs(utilities["same"]).mean() < 0.5 * np.abs(utilities["first"]).mean()


def test_catch_trials_repeat_a_pair_the_other_way_round(courses):
    for found in courses:
        repeats = [one for one in found.comparisons if one.catch]
        asked = {(one.first, one.second) for one in found.comparisons if not one.catch}
        assert len(repeats) == 2
        assert all((one.second, one.first) in asked for one in repeats)


@pytest.mark.parametrize(("answer", "alike"), [("second", 1), ("first", 0), ("same", 0)])
def test_catch_trials_are_counted_with_those_answered_alike(answer, alike):
    there = Comparison(KNOWN[0], KNOWN[1], "first")
    back = Comparison(KNOWN[1], KNOWN[0], answer, catch=True)
    assert catch_trials([there]) == (0, 0)
    assert catch_trials([there, back]) == (alike, 1)


def test_a_course_is_what_json_holds_of_it(courses):
    content = json.loads(json.dumps(to_dict(courses[0])))
    assert content["others"] == [list(theta) for theta in KNOWN]
    assert len(content["comparisons"]) == len(courses[0].comparisons)
    assert content["comparisons"][0]["answer"] in ("first", "second", "same")


def test_the_better_of_two_is_the_likelier_answer():
    best = np.array([[0.5, 0.5]])
    of_one = utility.Utility(best, best, 10 * np.eye(2)[None], np.array([0.1]), np.zeros(1))
    pairs = (
        np.array([[0.5, 0.5], [0.2, 0.2], [0.7, 0.7]]),
        np.array([[0.0, 0.0], *[[0.7, 0.7]] * 2]),
    )
    first, same, second = of_one.answers(*pairs)[0].T
    assert utility.ANSWERS == ("first", "same", "second")
    assert first[0] > 0.9
    assert second[1] > 0.9
    assert first[2] == pytest.approx(second[2])
    np.testing.assert_allclose(first + same + second, 1)


def test_slopes_of_the_likelihood_are_those_of_its_values():
    draw = np.random.default_rng(0)
    shape = np.array([[4.0, 1.0, 0.0], [1.0, 1.0, 0.2], [0.0, 0.2, 0.1]])
    prior = utility.Prior.around(draw.uniform(size=(5, 3)), curvature=shape)
    first, second = draw.uniform(size=(2, 8, 3))
    heard = utility._Heard(prior, first - second, first + second, draw.integers(3, size=8))
    z = draw.standard_normal((2, prior.dimensions))
    for index, step in enumerate(1e-5 * np.eye(prior.dimensions)):
        slope = (heard(z + step)[0] - heard(z - step)[0]) / 2e-5
        assert heard(z)[1][:, index] == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_bad_input_is_refused_by_name():
    pair = propose(course())
    with pytest.raises(ValueError, match="one of first, second, same, got 'maybe'"):
        answered(course(), pair, "maybe")
    with pytest.raises(ValueError, match=r"first must lie in the unit box, got \(1\.5, 0\.1\)"):
        answered(course(), Comparison((1.5, 0.1), (0.1, 0.1)), "first")
    with pytest.raises(ValueError, match=r"second has 3 numbers where .* 2"):
        answered(course(), Comparison((0.5, 0.1), (0.1, 0.1, 0.1)), "first")
    with pytest.raises(ValueError, match="start must lie in the unit box"):
        course(start=(float("nan"), 0.5))
    with pytest.raises(ValueError, match=r"curvature must be a matrix \(2, 2\)"):
        course(curvature=((1.0, float("nan")), (0.0, 1.0)))
    with pytest.raises(ValueError, match="without negative eigenvalues"):
        course(curvature=((1.0, 2.0), (2.0, 1.0)))
    with pytest.raises(ValueError, match="a covariance says how sure a start is"):
        course(covariance=((0.1, 0.0), (0.0, 0.1)))
    with pytest.raises(ValueError, match=r"covariance must be a matrix \(2, 2\)"):
        course(start=(0.5, 0.5), covariance=((0.1,),))
    with pytest.raises(ValueError, match="others is empty"):
        Course((), 0)
    with pytest.raises(ValueError, match="others has 1 numbers"):
        Course(((0.1, 0.2), (0.1,)), 0)
    with pytest.raises(ValueError, match="seed must be a whole number from 0, got -1"):
        course(-1)
    with pytest.raises(ValueError, match="must be answered, got None"):
        course(comparisons=(pair,))


def test_a_guess_is_held_to_as_far_as_it_is_sure():
    covariance = np.diag([0.0001, 0.04])
    sure = utility.Prior.around(np.array(KNOWN), np.array([0.3, 0.6]), sure=covariance)
    usual = utility.Prior.around(np.array(KNOWN), np.array([0.3, 0.6]))
    deviations = np.sqrt(np.diag(sure.root @ sure.root.T))
    near = (utility.GUESSED * utility.WIDENING) ** 2
    np.testing.assert_allclose(deviations, np.sqrt(np.array([0.0001, 0.04]) + near))
    assert deviations[0] < np.sqrt((usual.root @ usual.root.T)[0, 0])
    np.testing.assert_allclose(sure.steepness, usual.steepness)
