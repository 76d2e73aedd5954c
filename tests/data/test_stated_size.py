"""Which sizes are one image resized, and what becomes of its annotations."""

from __future__ import annotations

import pytest

from aligncli.data.stated_size import find_scale, scale_annotation


@pytest.mark.parametrize(
    ("found", "stated", "scale"),
    [
        ((240, 320), (480, 640), (0.5, 0.5)),
        ((3000, 4005), (300, 400), (10, 4005 / 400)),  # annotated on a preview of 300 x 400.5
        ((333, 500), (427, 640), (333 / 427, 500 / 640)),  # rounded down: 333.6
        ((256, 256), (512, 512), (0.5, 0.5)),
        ((640, 480), (480, 640), None),
        ((320, 240), (480, 640), None),  # turned as well
        ((240, 324), (480, 640), None),
        ((480, 642), (480, 640), None),  # two columns more: not resized
        ((320, 319), (639, 640), None),  # turned, perhaps: almost square
        ((1, 1), (30, 40), None),
    ],
)
def test_only_a_resized_image_has_a_scale(found, stated, scale):
    assert find_scale(found=found, stated=stated) == scale


def test_what_cannot_be_scaled_is_left_for_others_to_judge():
    """But for a mask, which would pass as sound."""
    record = {"bbox": [1, 2, None, 4], "area": "large", "keypoints": [1, 2], "segmentation": [[1, 2, 3]], "id": 7}
    assert scale_annotation(record, (2, 2)) == {key: record[key] for key in record if key != "segmentation"}
    assert "segmentation" in record
