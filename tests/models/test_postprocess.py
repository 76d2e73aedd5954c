"""From dense predictions to detections, on numbers made by hand."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from aligncli.boxes import clip_boxes, decode_boxes
from aligncli.models.postprocess import Candidates, Postprocess, best_logits, logit

SIZES = torch.tensor([[100, 100]])


def postprocess(**changes):
    settings = {
        "score_threshold": 0.05,
        "candidates_per_level": 1000,
        "nms_threshold": 0.5,
        "detections_per_image": 100,
    }
    return Postprocess(**(settings | changes))


def level(boxes, scores):
    """One level of candidates that are exactly `boxes`."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return Candidates(torch.tensor(scores).logit()[None], torch.zeros(1, len(boxes), 4), boxes, decode_boxes)


def test_duplicates_of_a_class_are_suppressed_and_other_classes_are_not():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]]
    found = postprocess()([level(boxes, [[0.9, 0.01], [0.8, 0.01], [0.01, 0.7]])], SIZES)[0]
    assert found["labels"].tolist() == [0, 1]
    assert torch.allclose(found["scores"], torch.tensor([0.9, 0.7]))


def test_boxes_are_clipped_and_scores_below_the_threshold_cut():
    found = postprocess()([level([[-5, 90, 20, 130], [0, 0, 9, 9]], [[0.6], [0.04]])], SIZES)[0]
    assert found["boxes"].tolist() == [[0, 90, 20, 100]]


def test_only_the_best_candidates_of_each_level_and_the_best_detections_of_the_image_stay():
    far_apart = [[[20 * i, 0, 20 * i + 9, 9] for i in range(4)], [[20 * i, 50, 20 * i + 9, 59] for i in range(4)]]
    levels = [level(far_apart[0], [[0.5], [0.9], [0.6], [0.7]]), level(far_apart[1], [[0.3], [0.2], [0.4], [0.1]])]
    found = postprocess(candidates_per_level=2)(levels, SIZES)[0]
    assert torch.allclose(found["scores"], torch.tensor([0.9, 0.7, 0.4, 0.3]))
    assert len(postprocess(detections_per_image=3)(levels, SIZES)[0]["boxes"]) == 3


def test_a_class_may_have_a_box_of_its_own():
    reference = torch.tensor([[[40.0, 40.0, 50.0, 50.0], [60.0, 60.0, 80.0, 80.0]]])
    shift = torch.tensor([[[0.0, 0.0], [1.0, -2.0]], [[-1.0, 0.0], [0.0, 1.0]]])  # of row and class, in its sides
    values = torch.cat((shift, torch.zeros(2, 2, 2)), dim=-1)[None]
    scores = torch.tensor([[[0.6, 0.9], [0.7, 0.8]]])
    found = postprocess()([Candidates(scores.logit(), values, reference, decode_boxes)], SIZES)[0]
    assert found["labels"].tolist() == [1, 1, 0, 0]
    assert found["boxes"].tolist() == [[50, 20, 60, 30], [60, 80, 80, 100], [40, 60, 60, 80], [40, 40, 50, 50]]


def test_levels_of_one_head_are_decoded_in_one_call_and_those_of_another_by_its_own():
    calls = []

    def shifted(references, values):
        calls.append(references.shape[1])
        return decode_boxes(references, values) + 50

    levels = [level([[20 * i, 0, 20 * i + 9, 9]], [[0.9 - 0.1 * i]]) for i in range(3)]
    levels = [replace(one, decode=shifted) for one in levels[:2]] + levels[2:]
    found = postprocess()(levels, SIZES)[0]
    assert calls == [2]
    assert found["boxes"].tolist() == [[50, 50, 59, 59], [70, 50, 79, 59], [40, 0, 49, 9]]


@pytest.mark.parametrize("seed", range(4))
def test_one_nms_for_the_batch_equals_one_an_image(seed):
    generator = torch.Generator().manual_seed(seed)
    count, images, classes = 300, 3, 4
    references = torch.rand(images, count, 4, generator=generator) * 900
    references[..., 2:] = references[..., :2] + 5 + references[..., 2:] / 5
    deltas = torch.randn(images, count, 4, generator=generator) * 0.2
    logits = torch.randn(images, count, classes, generator=generator)
    sizes = torch.tensor([[800, 1000], [1000, 700], [640, 640]])
    batch = postprocess()([Candidates(logits, deltas, references, decode_boxes)], sizes)
    for i in range(images):
        boxes = clip_boxes(decode_boxes(references[i], deltas[i])[None], sizes[i : i + 1])[0]
        scores, flat = logits[i].flatten().sort(descending=True)
        rows, labels = flat[:1000] // classes, flat[:1000] % classes
        keep = scores[:1000] > logit(0.05)
        rows, labels, scores = rows[keep], labels[keep], scores[:1000][keep]
        kept = batched_nms(boxes[rows].double(), scores.double(), labels, 0.5)[:100]
        assert torch.equal(batch[i]["boxes"], boxes[rows[kept]])
        assert torch.equal(batch[i]["labels"], labels[kept])


def test_nothing_above_the_threshold_gives_empty_detections_for_every_image():
    empty = Candidates(torch.full((2, 5, 3), -20.0), torch.zeros(2, 5, 4), torch.rand(5, 4).cumsum(1), decode_boxes)
    found = postprocess()([empty], torch.tensor([[9, 9], [9, 9]]))
    assert [tuple(x["boxes"].shape) for x in found] == [(0, 4), (0, 4)]


def test_logit_of_the_ends_is_infinite():
    assert logit(0.0) == -float("inf")
    assert logit(1.0) == float("inf")


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 6)),
    count=st.integers(1, 300),
    num_values=st.integers(1, 10_000),
    seed=st.integers(0, 1000),
)
def test_the_best_logits_are_those_of_one_top_k_over_rows_and_classes(shape, count, num_values, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(num_values, shape, generator=generator).float()  # with ties, where there are few values
    best, rows, classes = best_logits(logits, count)
    assert torch.equal(best, logits.flatten(1).topk(min(count, logits[0].numel()), dim=1).values)
    image = torch.arange(shape[0])[:, None]
    assert torch.equal(logits[image, rows, classes], best)
    assert all(len(set(places)) == len(places) for places in (rows * shape[2] + classes).tolist())
