import numpy as np

from aligncli.data.random_stream import RandomStream

GOLDEN_INTEGERS = [448, 430, 419, 277, 821]
GOLDEN_BYTES = [[134, 127], [182, 1], [139, 104]]
GOLDEN_ORDER = [0, 3, 4, 2, 1, 5]
GOLDEN_BELL = [-0.9066272377967834, -0.4668453633785248, 0.08795637637376785]


def test_the_stream_of_a_key_never_changes():
    stream = RandomStream(1, 2)
    assert [stream.below(1000) for _ in range(5)] == GOLDEN_INTEGERS
    assert stream.bytes(3, 2).tolist() == GOLDEN_BYTES
    assert stream.permutation(6).tolist() == GOLDEN_ORDER
    assert stream.bell(3).tolist() == GOLDEN_BELL


def test_different_keys_give_different_streams():
    firsts = {RandomStream(seed, index).unit() for seed in range(10) for index in range(1, 10)}
    assert len(firsts) == 90


def test_bell_has_mean_zero_and_deviation_one_in_every_lane():
    values = RandomStream(5).bell(100_000, 4)  # four lanes share a word
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(values.T), np.eye(4), atol=0.02)


def test_uniform_draws_keep_their_range_and_mean():
    stream = RandomStream(6)
    values = np.array([stream.uniform(-2, 4) for _ in range(20_000)])
    assert -2 <= values.min() < -1.99
    assert 3.99 < values.max() < 4
    assert abs(values.mean() - 1) < 0.05
    sizes = np.array([stream.log_uniform(16, 64) for _ in range(20_000)])
    assert 16 <= sizes.min() < sizes.max() < 64
    assert abs(np.median(sizes) - 32) < 0.7


def test_a_permutation_holds_every_number_once():
    order = RandomStream(7).permutation(1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert order.tolist() != list(range(1000))
