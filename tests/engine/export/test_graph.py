"""What is exported detects what the detector does, in results of one shape."""

import pytest
import torch

from aligncli.engine.export.class_nms import class_nms
from aligncli.engine.export.graph import DetectionGraph
from aligncli.engine.export.verify import detections_of
from tests.helpers import tiny_detector

LOW = {"model.postprocess.score_threshold": 0.001}


@pytest.mark.parametrize("name", ["aligndet_small", "retinanet_small", "fcos_small", "refinedet_small"])
def test_the_graph_detects_what_the_detector_does(name):
    detector = tiny_detector(name, changes=LOW).eval().double()  # random weights' scores are a float32's rounding apart
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        outputs = DetectionGraph(detector, num_classes=3)(images)
        wanted = detector(list(images))
    for index, own in enumerate(wanted):
        found = detections_of(outputs, index)
        assert len(own["scores"]) > 20
        assert torch.equal(found["labels"], own["labels"])
        torch.testing.assert_close(found["scores"].float(), own["scores"].float())
        torch.testing.assert_close(found["boxes"].float(), own["boxes"].float(), rtol=1e-4, atol=1e-3)


def test_what_is_no_detection_has_label_minus_one_and_no_box():
    detector = tiny_detector("retinanet_small", changes={"model.postprocess.score_threshold": 0.9}).eval()
    with torch.no_grad():
        boxes, scores, labels = DetectionGraph(detector, num_classes=3)(torch.rand(1, 3, 64, 64))
    limit = detector.postprocess.detections_per_image
    assert (boxes.shape, scores.shape, labels.shape) == ((1, limit, 4), (1, limit), (1, limit))
    assert set(labels.unique().tolist()) == {-1}
    assert not boxes.any()
    assert not scores.any()


def test_class_nms_is_within_an_image_and_a_class_and_drops_what_has_no_score():
    box = torch.tensor([0.0, 0.0, 10.0, 10.0])
    boxes = box.expand(2, 4, 4)
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.0], [0.5, 0.0, 0.6, 0.4]])
    labels = torch.tensor([[0, 0, 1, 2], [1, 0, 1, 2]])
    kept = class_nms(boxes, scores, labels, 3, 0.5)
    assert kept.tolist() == [[True, False, True, False], [False, False, True, True]]
