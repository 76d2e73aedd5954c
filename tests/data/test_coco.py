import json

import numpy as np
import pytest
import torch
from PIL import Image

from aligncli.config import InputConfig
from aligncli.data.coco import CocoDataset
from aligncli.data.images import UnreadableImageError
from aligncli.data.loader import eval_loader, train_loader
from aligncli.errors import DataError

ORIENTATION = 0x0112
INPUT = InputConfig(min_short_side=30, max_short_side=30, long_side=40, workers=0, aspect_grouping=False)


def test_labels_are_contiguous_in_the_order_of_category_ids(folder):
    dataset = CocoDataset(folder.config(), "train")
    assert dataset.categories.names == ("fish", "crab", "star")
    assert dataset.categories.coco_ids == (3, 7, 90)
    assert dataset[1][1]["labels"].tolist() == [2, 1]


def test_boxes_are_corners_and_crowd_regions_are_flagged(folder):
    image, target = CocoDataset(folder.config(), "train")[1]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 30, 40))
    assert target["boxes"].dtype == torch.float32
    assert target["boxes"].tolist() == [[1.5, 2, 11.5, 22], [30, 20, 38, 28]]
    assert target["crowd"].tolist() == [False, True]
    assert (target["image_id"], target["size"], target["scale"]) == (15, (30, 40), (1.0, 1.0))


def test_images_without_annotations_stay_as_background(folder):
    dataset = CocoDataset(folder.config(), "train")
    _, target = dataset[2]
    assert len(dataset) == 3
    assert target["boxes"].shape == (0, 4)
    assert (target["labels"].dtype, target["crowd"].dtype) == (torch.int64, torch.bool)


def test_each_split_has_its_own_images(folder):
    train, val = (CocoDataset(folder.config(), split) for split in ("train", "val"))
    assert train.ground_truth()["images"][0]["file_name"] == "train0.png"
    assert val.ground_truth()["images"][0]["file_name"] == "val0.png"


def test_split_in_the_image_folder_is_replaced(folder):
    folder.images.rename(folder.root / "val2017")
    dataset = CocoDataset(folder.config(images="{split}2017"), "val")
    assert dataset[0][0].shape == (3, 30, 40)


def test_ground_truth_keeps_published_numbers_and_reindexes_ids(folder):
    truth = CocoDataset(folder.config(), "val").ground_truth()
    assert truth["annotations"] == [
        {"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 0},
        {"id": 2, "image_id": 15, "category_id": 90, "bbox": [1.5, 2, 10, 20], "area": 123.5, "iscrowd": 0},
        {"id": 3, "image_id": 15, "category_id": 7, "bbox": [30, 20, 8, 8], "area": 64, "iscrowd": 1},
    ]
    assert truth["images"][2] == {"id": 25, "file_name": "val2.png", "width": 40, "height": 30}
    assert [record["id"] for record in truth["categories"]] == [3, 7, 90]
    json.dumps(truth)  # plain numbers, not numpy's


def test_id_area_and_iscrowd_may_be_missing(folder):
    document = folder.document("train")
    for record in document["annotations"]:
        for key in ("id", "area", "iscrowd"):
            del record[key]
    folder.write("train", document)
    truth = CocoDataset(folder.config(), "train").ground_truth()
    assert [record["area"] for record in truth["annotations"]] == [1200, 200, 64]
    assert [record["iscrowd"] for record in truth["annotations"]] == [0, 0, 0]


def test_boxes_are_clipped_and_boxes_without_area_left_out_of_training_only(folder):
    document = folder.document("train")
    boxes = [[-3, -4, 10, 10], [35, 25, 10.5, 10], [5, 5, 0, 8], [40, 3, 5, 5], [-9, 3, 9, 5], [3, 3, 1, 1]]
    document["annotations"] = [
        {"id": row, "image_id": 5, "category_id": 7, "bbox": box} for row, box in enumerate(boxes)
    ]
    folder.write("train", document)
    dataset = CocoDataset(folder.config(), "train")
    _, target = dataset[0]
    assert target["boxes"].tolist() == [[0, 0, 7, 6], [35, 25, 40, 30], [3, 3, 4, 4]]
    assert target["labels"].tolist() == [1, 1, 1]
    assert dataset.num_boxes_left_out == 3
    assert [record["bbox"] for record in dataset.ground_truth()["annotations"]] == boxes


@pytest.mark.parametrize("stated_upright", [True, False])
def test_annotations_refer_to_the_upright_image(folder, stated_upright):
    """Orientation 6 turns the stored 40 x 30 into 30 x 40; sizes of the stored image are refused."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stored = np.zeros((30, 40, 3), np.uint8)
    stored[:10, :20] = 255  # upper left as stored is upper right upright: x 20..30, y 0..20
    Image.fromarray(stored).save(folder.images / "train0.png", exif=exif)
    document = folder.document("train")
    if stated_upright:
        document["images"][0] |= {"width": 30, "height": 40}
        document["annotations"][1]["bbox"] = [20, 0, 10, 20]
    folder.write("train", document)
    dataset = CocoDataset(folder.config(), "train")
    if stated_upright:
        image, target = dataset[0]
        x1, y1, x2, y2 = target["boxes"][0].int().tolist()
        assert (image[:, y1:y2, x1:x2] == 255).all()
        assert image.sum() == image[:, y1:y2, x1:x2].sum()
        assert target["size"] == (40, 30)
    else:
        with pytest.raises(DataError, match=r"'train0.png' is 30 x 40, but .* 40 x 30 .*EXIF turns it upright"):
            dataset[0]


def test_a_size_that_is_not_the_files_is_refused(folder):
    document = folder.document("train")
    document["images"][0] |= {"width": 80, "height": 60}
    folder.write("train", document)
    with pytest.raises(DataError, match=r"'train0.png' is 40 x 30, but its annotations say 80 x 60"):
        CocoDataset(folder.config(unreadable="skip"), "train")[0]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_image_mode_gives_three_channels(folder, mode):
    Image.new(mode, (40, 30)).save(folder.images / "train0.png")
    assert CocoDataset(folder.config(), "train")[0][0].shape == (3, 30, 40)


def test_an_unreadable_image_is_an_error_that_names_it(folder):
    (folder.images / "train1.png").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"train1\.png"):
        CocoDataset(folder.config(), "train")[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_takes_the_next_readable_image_and_counts(folder, workers):
    (folder.images / "train1.png").write_bytes(b"broken")
    (folder.images / "train2.png").unlink()
    dataset = CocoDataset(folder.config(unreadable="skip"), "train")
    inputs = INPUT.model_copy(update={"workers": workers})
    batches = list(train_loader(dataset, inputs, batch_size=3, seed=0, num_batches=2))
    assert [target["image_id"] for _, targets in batches for target in targets] == [5] * 6
    assert dataset.unreadable_files == ["train1.png", "train2.png"]


def test_skip_gives_up_after_ten_images_in_a_row(folder):
    for row in range(3):
        (folder.images / f"train{row}.png").write_bytes(b"broken")
    dataset = CocoDataset(folder.config(unreadable="skip"), "train")
    with pytest.raises(DataError, match=r"10 images in a row cannot be read, the last one: image .*train0\.png"):
        dataset[0]


def test_evaluation_never_skips(folder):
    (folder.images / "val1.png").write_bytes(b"broken")
    dataset = CocoDataset(folder.config(unreadable="skip"), "val")
    with pytest.raises(UnreadableImageError, match=r"val1\.png"):
        list(eval_loader(dataset, INPUT, batch_size=2))


def test_a_link_out_of_the_folder_is_an_error_even_where_unreadable_images_are_skipped(folder, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "secret.png")
    (folder.images / "train1.png").unlink()
    (folder.images / "train1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"'train1.png' is refused: it is a link out of the image folder"):
        CocoDataset(folder.config(unreadable="skip"), "train")[1]


@pytest.mark.parametrize("name", ["/etc/passwd", "../val0.png", "a/../../b", "C:\\a.png", "a\0.png"])
def test_a_file_name_that_leaves_the_folder_stops_at_once(folder, name):
    document = folder.document("train")
    document["images"][1]["file_name"] = name
    folder.write("train", document)
    with pytest.raises(DataError, match=r"images\[1\]\.file_name: is refused"):
        CocoDataset(folder.config(), "train")


def test_a_missing_folder_is_named(tmp_path, folder):
    with pytest.raises(DataError, match=r"data folder .*nowhere does not exist"):
        CocoDataset(folder.config(root=str(tmp_path / "nowhere")), "train")


def test_a_missing_annotation_file_is_named_with_what_belongs_there(folder):
    (folder.root / "annotations" / "instances_val.json").unlink()
    with pytest.raises(DataError, match=r"lacks annotations/instances_val\.json; it must hold images/"):
        CocoDataset(folder.config(), "val")


def test_a_missing_image_folder_is_named(folder):
    with pytest.raises(DataError, match=r"image folder .*pictures does not exist; the recipe's data\.images"):
        CocoDataset(folder.config(images="pictures"), "train")


def test_zero_matching_images_are_an_error(folder):
    for path in folder.images.glob("train*"):
        path.unlink()
    with pytest.raises(DataError, match=r"none of the 3 images of .*; the first is 'train0\.png'"):
        CocoDataset(folder.config(), "train")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_image_is_known_before_training(folder, split):
    (folder.images / f"{split}1.png").unlink()
    with pytest.raises(DataError, match=rf"1 of the 3 images of .* is not in .*; the first is '{split}1\.png'"):
        CocoDataset(folder.config(), split)


def test_training_that_skips_unreadable_images_does_without_missing_ones(folder):
    (folder.images / "train1.png").unlink()
    (folder.images / "val1.png").unlink()
    config = folder.config(unreadable="skip")
    assert CocoDataset(config, "train")[1][1]["image_id"] == 25
    with pytest.raises(DataError, match=r"1 of the 3 images"):
        CocoDataset(config, "val")


def test_images_in_folders_of_their_own_and_behind_links_are_found(folder):
    document = folder.document("train")
    (folder.images / "deep" / "er").mkdir(parents=True)
    (folder.images / "train0.png").rename(folder.images / "deep" / "er" / "0.png")
    (folder.images / "train1.png").rename(folder.images / "deep" / "1.png")
    (folder.images / "deep" / "link.png").symlink_to(folder.images / "train2.png")
    for image, name in zip(document["images"], ("deep/er/0.png", "./deep/1.png", "deep/link.png"), strict=True):
        image["file_name"] = name
    folder.write("train", document)
    assert len(CocoDataset(folder.config(), "train")) == 3


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_is_an_index_error(folder, index):
    with pytest.raises(IndexError):
        CocoDataset(folder.config(), "train")[index]


def test_the_first_fatal_fault_stops_with_one_line_that_names_it(folder):
    document = folder.document("train")
    document["annotations"][2]["bbox"] = [1, 2, float("nan"), 4]
    path = folder.write("train", document)
    with pytest.raises(DataError, match=r"annotations\[2\]\.bbox: must be four finite numbers") as caught:
        CocoDataset(folder.config(), "train")
    message = str(caught.value)
    assert "annotation id 9, image id 15" in message
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize("changes", [{}, {"annotations": []}, {"annotations": [{"bbox": "hidden"}]}])
def test_the_test_split_is_images_without_annotations(folder, changes):
    folder.write_test(**changes)
    dataset = CocoDataset(folder.config(), "test")
    image, target = dataset[1]
    assert tuple(image.shape) == (3, 30, 40)
    assert target["image_id"] == 15
    assert target["boxes"].shape == (0, 4)
    assert dataset.categories.coco_ids == (3, 7, 90)
    assert len(dataset) == len(dataset.ground_truth()["images"]) == 3
    assert dataset.ground_truth()["annotations"] == []
    assert [len(targets) for _, targets in eval_loader(dataset, INPUT, batch_size=2)] == [2, 1]


@pytest.mark.parametrize("split", ["train", "val"])
def test_only_the_test_split_may_lack_annotations(folder, split):
    listed = folder.write_test().relative_to(folder.root)
    with pytest.raises(DataError, match=r"annotations: must be a list \(missing\)"):
        CocoDataset(folder.config(**{f"{split}_annotations": str(listed)}), split)


def test_everything_else_of_a_test_list_is_checked(folder):
    folder.write_test(categories=[])
    with pytest.raises(DataError, match=r"image_info_test-dev2017\.json: categories: is empty$"):
        CocoDataset(folder.config(), "test")
    document = folder.document("val")
    document["images"][2]["file_name"] = "../val2.png"
    folder.write_test(images=document["images"])
    with pytest.raises(DataError, match=r"images\[2\]\.file_name: is refused"):
        CocoDataset(folder.config(), "test")


def test_a_missing_test_list_is_named_with_what_belongs_there(folder):
    with pytest.raises(DataError, match=r"lacks annotations/image_info_test-dev2017\.json; it must hold the images"):
        CocoDataset(folder.config(), "test")


def test_evaluation_of_test_images_never_skips(folder):
    folder.write_test()
    (folder.images / "val1.png").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"val1\.png"):
        CocoDataset(folder.config(unreadable="skip"), "test")[1]


@pytest.mark.parametrize("real_set", ["aquarium", "coco_mini"], indirect=True)
def test_real_folders_load_and_agree_with_their_files(real_set, folder):
    for split in ("train", "val"):
        dataset = CocoDataset(folder.config(root=str(real_set)), split)
        published = json.loads((real_set / "annotations" / f"instances_{split}.json").read_text())
        truth = dataset.ground_truth()
        assert len(truth["annotations"]) == len(published["annotations"])
        for key in ("area", "iscrowd"):
            assert sum(r[key] for r in truth["annotations"]) == pytest.approx(
                sum(r[key] for r in published["annotations"])
            )
        for index in range(0, len(dataset), 40):
            image, target = dataset[index]
            assert tuple(image.shape[1:]) == target["size"]
            assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()


def as_jpeg(folder, *, times: int) -> None:
    """The training images as JPEG files of that many times the size, boxes with them."""
    path = folder.root / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    for image in document["images"]:
        name = image["file_name"].replace(".png", ".jpg")
        size = (times * image["width"], times * image["height"])
        Image.open(folder.images / image["file_name"]).resize(size).save(folder.images / name)
        image |= {"file_name": name, "width": size[0], "height": size[1]}
    for annotation in document["annotations"]:
        annotation["bbox"] = [times * x for x in annotation["bbox"]]
    path.write_text(json.dumps(document))


def test_large_jpeg_images_may_come_reduced_with_boxes_and_scale(folder):
    as_jpeg(folder, times=8)
    image, target = CocoDataset(folder.config(min_decoded_side=100), "train")[1]  # 240 x 320 in the file
    assert tuple(image.shape) == (3, 120, 160)
    assert target["boxes"].tolist() == [[6, 8, 46, 88], [120, 80, 152, 112]]
    assert (target["size"], target["scale"]) == ((240, 320), (0.5, 0.5))


def test_what_is_decoded_reduced_reaches_the_network_where_the_whole_would(folder):
    as_jpeg(folder, times=8)
    whole, reduced = (
        list(eval_loader(CocoDataset(folder.config(min_decoded_side=side), "train"), INPUT, batch_size=1))
        for side in (0, 30)
    )
    for (_, [expected]), (_, [found]) in zip(whole, reduced, strict=True):
        torch.testing.assert_close(found["boxes"], expected["boxes"])
        assert found["scale"] == pytest.approx(expected["scale"])
        assert found["size"] == expected["size"]


def test_a_wrong_size_is_found_in_a_reduced_image_too(folder):
    as_jpeg(folder, times=8)
    path = folder.root / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    document["images"][0]["width"] *= 2
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="320"):
        CocoDataset(folder.config(min_decoded_side=30), "train")[0]
