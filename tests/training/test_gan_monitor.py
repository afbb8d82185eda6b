"""Warnings of slow failures: unbalanced discriminators, unequal gradients, collapsed codebooks."""

import pytest

from codec.training.callbacks.gan_monitor import GANMonitor
from tests.helpers.training import fit, small_task

STATES = {  # values that last, the discriminators' loss while guessing -> words of the warning
    "healthy": ({"disc": 1.3, "norm/codec": 1.0, "norm/disc": 3.0, "quantizer/usage/1": 0.9}, 2.0, []),
    "no discriminators yet": ({"norm/codec": 1.0, "quantizer/usage/1": 0.9}, None, []),
    "strong": ({"disc": 0.01}, 2.0, ["lower optim.disc.lr"]),
    "weak": ({"disc": 2.0}, 2.0, ["higher optim.disc.lr"]),
    "unequal": ({"norm/codec": 1e7, "norm/disc": 1.0}, 2.0, ["optim.codec.clip"]),
    "collapsed": ({f"quantizer/usage/{n}": 0.3 / n**3 for n in (1, 3, 4)}, None, ["codebook 3, 4", "1.1%, 0.5%"]),
}


@pytest.mark.parametrize("name", STATES)
def test_what_lasts_is_warned_about_at_most_every_so_often(name, caplog):
    values, chance, words = STATES[name]
    monitor = GANMonitor(patience=4, every=100)
    for step in range(10, 210, 10):
        monitor.judge(step, values, chance)
        assert len(caplog.messages) == (0 if not words or step < 40 else 1 if step < 140 else 2)
    assert all(text in message for message in caplog.messages for text in words)


def test_training_feeds_the_monitor_and_one_outlier_is_not_warned_about(tmp_path, caplog):
    monitor = GANMonitor(patience=4)
    for step in range(50):
        monitor.judge(step, {"disc": 0.0 if step % 10 == 0 else 1.2}, 2.0)
    assert not caplog.messages
    monitor = GANMonitor(patience=2, usage=1.1)
    fit(small_task(), 3, tmp_path, [monitor])
    assert monitor.history.keys() >= {"disc", "norm/codec", "norm/disc", "quantizer/usage/1"}
    assert [m for m in caplog.messages if "codebook 1, 2, 3" in m]
