"""The share of a process, from options or the environment of its launcher."""

import pytest

from codec.utils.distributed import rank_and_world_size
from codec.utils.errors import InputError


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (3, 8)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, (0, 1)),  # a batch script that starts one process
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0"}, (5, 8)),
        ({"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"}, (7, 8)),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_STEP": "2"}, (2, 3)),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "RANK": "1", "WORLD_SIZE": "4"}, (5, 8)),
    ],
)
def test_the_share_of_a_process(environment, wanted):
    assert rank_and_world_size(None, None, environment) == wanted
    assert rank_and_world_size(1, 2, environment) == (1, 2)


@pytest.mark.parametrize(
    "arguments", [(0, None, {}), (2, 2, {}), (-1, 2, {}), (None, None, {"WORLD_SIZE": "x"})], ids=str
)
def test_impossible_shares(arguments):
    with pytest.raises(InputError):
        rank_and_world_size(*arguments)
