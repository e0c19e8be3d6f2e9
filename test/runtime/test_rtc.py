import numpy as np
import pytest
from runtime.tiny_policy import TinyProcessor

from vla_ros.core.observation import Sample
from vla_ros.runtime.rtc import RealTimeChunking, prior_weights

STEP = 100_000_000  # ns


def test_weights_follow_the_papers_formula():
    weights = prior_weights(8, delay=2, overlap=5)
    expected = [1.0, 1.0]
    for i in (2, 3, 4):
        c = (5 - i) / (5 - 2 + 1)
        expected.append(c * (np.exp(c) - 1) / (np.e - 1))
    np.testing.assert_allclose(weights, [*expected, 0, 0, 0])


@pytest.mark.parametrize("delay", range(10))
@pytest.mark.parametrize("overlap", range(1, 9))
def test_weights_never_rise_and_stay_in_range(delay, overlap):
    weights = prior_weights(8, delay, overlap)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (np.diff(weights) <= 0).all()
    assert not weights[overlap:].any()


def chunk():
    return np.stack([np.arange(8.0), -np.arange(8.0)], axis=1)


def test_the_tail_starts_at_the_new_observation_in_the_new_states_frame():
    processor = TinyProcessor()
    rtc = RealTimeChunking(processor)
    assert rtc.prior(0, np.zeros(2)) is None
    rtc.remember(10 * STEP, chunk(), delay=0.15)
    state = np.array([2.0, -2.0])
    prior = rtc.prior(12 * STEP + STEP // 2, state)  # 2.5 rows later
    targets = processor.outputs(prior.actions, [Sample({}, state[None], "")])[0].parts[0].data
    np.testing.assert_allclose(targets[:5, 0], [2.5, 3.5, 4.5, 5.5, 6.5], atol=1e-6)
    np.testing.assert_allclose(targets[:5, 1], [-2.5, -3.5, -4.5, -5.5, -6.5], atol=1e-6)
    assert prior.weights.shape == (1, 8)
    assert (prior.weights[0, :2] == 1).all()  # 0.15 s are two rows begun
    assert prior.weights[0, 4] > 0 and not prior.weights[0, 5:].any()


def test_nothing_left_gone_back_and_reset():
    rtc = RealTimeChunking(TinyProcessor())
    rtc.remember(10 * STEP, chunk(), delay=0.05)
    assert rtc.prior(18 * STEP, np.zeros(2)) is None
    assert rtc.prior(9 * STEP, np.zeros(2)) is None
    assert rtc.prior(17 * STEP, np.zeros(2)) is not None
    rtc.reset()
    assert rtc.prior(11 * STEP, np.zeros(2)) is None


def test_the_largest_recent_delay_counts():
    rtc = RealTimeChunking(TinyProcessor(), window=2)
    for delay, frozen in ((0.05, 1), (0.31, 4), (0.05, 4), (0.05, 1)):
        rtc.remember(0, chunk(), delay)
        assert int((rtc.prior(STEP, np.zeros(2)).weights == 1).sum()) == frozen
