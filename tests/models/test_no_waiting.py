"""A training step hands work to the device and never waits for an answer."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aligncli.matching import pad_targets
from tests.helpers import random_batch, tiny_detector

# Operators whose result the host has to read: a number, or a size that depends on values
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal", "is_nonzero")


class Calls(TorchDispatchMode):
    """Names of the operators that were called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["retinanet_small", "aligndet_small"])
def test_losses_and_gradients_wait_for_nothing(name):
    model = tiny_detector(name)
    images, targets = random_batch()
    truth = pad_targets(targets, torch.device("cpu"))
    pixels, sizes = model.batch_images(images)
    with Calls() as calls:
        features = model.neck(model.backbone(pixels))
        losses = model.losses(features, model.geometry(features, sizes), truth)
        sum(losses.values()).backward()
    assert "convolution_backward" in calls.names
    assert not calls.names.intersection(WAITING)
