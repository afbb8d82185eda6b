"""A short loss curve that guards the training step: a change that bends it must say so by changing these numbers."""

import lightning
import pytest
import torch

from tests.helpers.training import fit, small_task

# Steps 1, 5, 10 ... 30 of the small task on tones, seed 1, fp32 on one CPU. Another CPU or BLAS rounds differently, and
# a code may then fall to its neighbour: hence 5 %, where a wrong gradient, weight or schedule shows as far more.
GOLDEN = {
    "mel": [0.692, 0.2973, 0.321, 0.3033, 0.2744, 0.2987, 0.3102],
    "adversarial": [-0.0624, -0.0714, -0.0818, 0.0603, 0.243, 0.2822, 0.2763],
    "feature": [0.4619, 0.4677, 0.5346, 0.579, 0.5734, 0.5613, 0.5606],
    "disc": [1.9999, 1.9944, 1.9433, 1.7894, 1.6227, 1.5529, 1.5401],
    "commitment": [0.0001, 0.0059, 0.0036, 0.0027, 0.004, 0.0047, 0.0036],
}


def curve(tmp_path) -> dict[str, list[float]]:
    found = {name: [] for name in GOLDEN}

    class Record(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 1 or trainer.global_step % 5 == 0:
                for name in found:
                    found[name].append(float(trainer.logged_metrics[f"train/{name}"]))

    torch.manual_seed(0)
    fit(small_task(), 30, tmp_path, [Record()])
    return found


def test_the_loss_curve_is_the_golden_one(tmp_path):
    found = curve(tmp_path)
    for name, expected in GOLDEN.items():
        assert found[name] == pytest.approx(expected, rel=0.05, abs=0.01), name
    assert found["mel"][-1] < 0.9 * found["mel"][0]
