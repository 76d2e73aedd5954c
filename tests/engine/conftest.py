"""A recipe that trains in a second."""

import pytest

from aligncli.config import Recipe
from tests.helpers import tiny_recipe

SECONDS = {
    "model.adm.num_convs": 1,
    "model.adm.channels": 16,
    "model.dpm.tower.num_convs": 1,
    "data.image_size": 64,
    "data.min_size": 12.0,
    "data.max_size": 40.0,
    "data.num_train": 12,
    "data.num_val": 4,
    "input.max_short_side": 64,
    "input.min_short_side": 48,
    "schedule.iterations": 12,
    "schedule.batch_size": 4,
    "schedule.log_every": 1,
    "schedule.checkpoint_every": 5,
}


@pytest.fixture
def recipe() -> Recipe:
    return tiny_recipe("aligndet_small", SECONDS)
