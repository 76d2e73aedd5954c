"""What every detector asks of its targets."""

import pytest
import torch

from aligncli.errors import DataError
from tests.helpers import random_batch, tiny_detector

NAMES = ("aligndet_small", "retinanet_small", "fcos_small", "ssd_small", "refinedet_small", "faster_rcnn_small_fpn")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_refused_by_every_detector(name, label):
    """SSD's loss would learn label K as background; the focal loss nothing, or that everything is background."""
    model = tiny_detector(name, num_classes=3)
    images, targets = random_batch(num_classes=3)
    targets[1]["labels"] = torch.tensor([0, label, 2])
    message = rf"label {label} in target 1 of a batch: expected 0\.\.2, one of .* 3 classes \(torchvision's begin at 1"
    with pytest.raises(DataError, match=message) as raised:
        model(images, targets)
    assert "\n" not in str(raised.value)
    targets[1]["labels"] = torch.tensor([0, 1, 2])
    assert all(torch.isfinite(loss) for loss in model(images, targets).values())


def test_a_batch_without_objects_has_no_label_that_is_wrong():
    images, _ = random_batch()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert tiny_detector()(images, [empty, empty])
