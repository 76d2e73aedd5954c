import math

import numpy as np
import pytest

from aligncli.config import CocoConfig, ShapesConfig
from aligncli.data.coco import CocoDataset
from aligncli.data.shapes import ShapesDataset
from aligncli.data.stats import dataset_stats


def test_counts_and_shapes_of_a_small_folder(folder):
    stats = dataset_stats(CocoDataset(folder.config(), "train"))
    assert (stats.num_images, stats.num_boxes, stats.num_crowd, stats.num_images_without_boxes) == (3, 3, 1, 1)
    assert stats.boxes_per_class == {"fish": 1, "crab": 0, "star": 1}  # the crab is a crowd region
    assert stats.box_sizes[2] == pytest.approx((math.sqrt(1200) + math.sqrt(200)) / 2)
    assert stats.box_aspects == pytest.approx(np.quantile([40 / 30, 10 / 20], [0.05, 0.25, 0.5, 0.75, 0.95]))
    assert (stats.image_heights, stats.image_widths) == ((30, 30), (40, 40))


def test_without_objects_shapes_are_undefined(folder):
    document = folder.document("train")
    document["annotations"] = document["annotations"][2:]  # the crowd region
    folder.write("train", document)
    stats = dataset_stats(CocoDataset(folder.config(), "train"))
    assert stats.num_images_without_boxes == 2
    assert all(math.isnan(value) for value in stats.box_sizes + stats.box_aspects)


def test_shapes_are_log_uniform_in_aspect():
    stats = dataset_stats(ShapesDataset(ShapesConfig(num_train=500), "train"))
    assert stats.num_images_without_boxes == stats.num_crowd == 0
    assert sum(stats.boxes_per_class.values()) == stats.num_boxes
    assert stats.box_aspects[2] == pytest.approx(1, rel=0.08)
    assert stats.box_aspects[1] * stats.box_aspects[3] == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize(
    ("real_set", "sizes", "aspects"),
    [
        ("coco_mini", (10, 25, 52, 113, 316), (0.27, 0.51, 0.88, 1.43, 3.42)),
        ("aquarium", (14, 29, 47, 75, 176), (0.44, 0.75, 1.20, 1.78, 2.67)),
    ],
    indirect=["real_set"],
)
def test_real_folders_have_their_published_box_shapes(real_set, sizes, aspects):
    stats = dataset_stats(CocoDataset(CocoConfig(root=str(real_set)), "train"))
    assert stats.box_sizes == pytest.approx(sizes, abs=0.6)
    assert stats.box_aspects == pytest.approx(aspects, abs=0.006)
