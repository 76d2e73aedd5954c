import json
import math
import sys

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from aligncli.data.dataset import Categories
from aligncli.engine.metrics import METRIC_NAMES, CocoMetrics, compute_metrics, score_files, to_coco_results
from aligncli.errors import DataError, UserError
from tests.helpers import REAL_DATA

AREA_BINS = ((32.0**2, 96.0**2), (40.0**2, 80.0**2), (10.0, 30_000.5))
COCO_CHECK = REAL_DATA / "coco_eval_check"


def one_image(boxes, *, category_id=1, **fields):
    """COCO ground truth: one 200 x 200 image (id 1), categories 1 'cat' and 2 'dog', xywh boxes."""
    return {
        "images": [{"id": 1, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": category_id, "bbox": list(box), "iscrowd": 0} | fields
            for i, box in enumerate(boxes, start=1)
        ],
    }


def found(box, score=0.9, *, image_id=1, category_id=1):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


def scored(*arguments, **settings):
    """Metrics without the last bits: a perfect class has 100 (1 - 2^-52) by the reference's own formula."""
    metrics = compute_metrics(*arguments, **settings)
    rounded = [{name: round(v, 9) for name, v in part.items()} for part in (metrics.values, metrics.per_class)]
    return CocoMetrics(rounded[0], rounded[1], metrics.evaluator)


def random_set(seed):
    """Small ground truth and detections with everything that makes evaluators disagree."""
    random = np.random.default_rng(seed)
    image_ids = random.choice(10**6, random.integers(1, 6), replace=False).tolist()  # unsorted, with gaps
    category_ids = random.choice(90, random.integers(1, 5), replace=False).tolist()
    annotations, detections = [], []
    for image_id in image_ids:
        for _ in range(random.integers(0, 8)):  # some images have nothing to find
            box = np.concatenate([random.uniform(0, 300, 2), np.exp(random.uniform(1, 5.5, 2))])
            box = np.round(box) if random.random() < 0.5 else box
            box[2] *= random.random() > 0.05  # some boxes have no area
            category_id = int(random.choice(category_ids))
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3] * random.choice([1.0, 0.6])),
                    "iscrowd": int(random.random() < 0.15),
                }
            )
            for _ in range(random.integers(0, 4)):
                near = box + (0 if random.random() < 0.2 else random.normal(0, 8, 4))
                near[2:] = near[2:].clip(0)
                label = category_id if random.random() < 0.9 else int(random.choice(category_ids))
                detections.append(found(near.tolist(), random_score(random), image_id=image_id, category_id=label))
        if random.random() < 0.2:
            boxes = random.uniform(0, [300, 300, 100, 100], (140, 4)).tolist()
            for box in boxes:
                score = random_score(random)
                detections.append(found(box, score, image_id=image_id, category_id=category_ids[0]))
    random.shuffle(detections)
    ground_truth = {
        "images": [{"id": image_id} for image_id in image_ids],
        "categories": [{"id": category_id, "name": f"class {category_id}"} for category_id in category_ids],
        "annotations": annotations,
    }
    return ground_truth, [] if random.random() < 0.05 else detections


def random_score(random):
    return float(np.round(random.random(), 1)) if random.random() < 0.6 else float(random.random())


def bits(metrics):
    """All values with their exact bits, NaN included."""
    return {name: value.hex() for name, value in (metrics.values | metrics.per_class).items()}


class TestParity:
    def test_hotcoco_equals_pycocotools_to_the_bit_on_300_random_sets(self):
        for seed in range(300):
            ground_truth, detections = random_set(seed)
            settings = {
                "per_class": True,
                "area_bins": AREA_BINS[seed % 3],
                "max_detections": (100, 100, 300, 5, 1)[seed % 5],
            }
            fast = compute_metrics(ground_truth, detections, evaluator="hotcoco", **settings)
            reference = compute_metrics(ground_truth, detections, evaluator="pycocotools", **settings)
            assert (fast.evaluator, reference.evaluator) == ("hotcoco", "pycocotools")
            assert bits(fast) == bits(reference), f"seed {seed}"

    def test_the_random_sets_hold_the_hard_cases(self):
        sets = [random_set(seed) for seed in range(300)]
        busy = crowds = tied = 0
        for ground_truth, detections in sets:
            per_image = [d["image_id"] for d in detections]
            busy += any(per_image.count(image) > 100 for image in set(per_image))
            crowds += any(a["iscrowd"] for a in ground_truth["annotations"])
            scores = [(d["image_id"], d["score"]) for d in detections]
            tied += len(set(scores)) < len(scores)
        with_objects = [{a["image_id"] for a in g["annotations"]} for g, _ in sets]
        assert min(busy, crowds, tied) > 50
        assert sum(len(images) < len(g["images"]) for images, (g, _) in zip(with_objects, sets)) > 50
        assert sum(not detections for _, detections in sets) > 5
        assert sum(not g["annotations"] for g, _ in sets) > 0

    def test_values_equal_what_pycocotools_itself_summarizes(self):
        for seed in range(40):
            ground_truth, detections = random_set(seed)
            if not detections:  # its loadRes cannot take them
                continue
            ours = compute_metrics(ground_truth, detections).values
            for number, annotation in enumerate(ground_truth["annotations"], start=1):
                annotation["id"] = number
            truth = COCO()
            truth.dataset = ground_truth
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            expected = [float("nan") if value == -1 else 100.0 * value for value in evaluation.stats]
            names = [name for name in METRIC_NAMES if name != "AP90"]
            np.testing.assert_array_equal([ours[name] for name in names], expected)


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
class TestValues:
    def test_perfect_detections_score_100(self, evaluator):
        boxes = [(10, 10, 20, 20), (60, 60, 50, 50), (0, 0, 150, 150)]  # small, medium, large
        metrics = scored(one_image(boxes), [found(box) for box in boxes], evaluator=evaluator)
        assert set(metrics.values) == set(METRIC_NAMES)
        assert metrics.values.pop("AR1") == pytest.approx(100 / 3)
        assert set(metrics.values.values()) == {100.0}

    def test_a_wrong_box_above_the_right_one_halves_precision(self, evaluator):
        detections = [found((150, 150, 20, 20), 0.9), found((10, 10, 20, 20), 0.8)]
        metrics = scored(one_image([(10, 10, 20, 20)]), detections, evaluator=evaluator)
        assert metrics.values["AP"] == pytest.approx(50)
        assert metrics.values["AR1"] == 0
        assert metrics.values["AR10"] == 100

    @pytest.mark.parametrize(("width", "ap", "ap90"), [(94, 90, 100), (92, 90, 100), (88, 80, 0), (52, 10, 0)])
    def test_thresholds_count_by_overlap(self, evaluator, width, ap, ap90):
        truth, detections = one_image([(0, 0, 100, 50)]), [found((0, 0, width, 50))]  # IoU = width / 100
        metrics = scored(truth, detections, evaluator=evaluator)
        assert metrics.values["AP"] == pytest.approx(ap)
        assert metrics.values["AP90"] == ap90
        assert metrics.values["AP50"] == 100

    def test_no_detections_score_zero(self, evaluator):
        metrics = scored(one_image([(10, 10, 20, 20)]), [], evaluator=evaluator, per_class=True)
        assert metrics.values["AP"] == metrics.values["AR100"] == metrics.values["APs"] == 0
        assert math.isnan(metrics.values["APl"])
        assert metrics.per_class["cat"] == 0

    def test_no_ground_truth_is_undefined(self, evaluator):
        truth = one_image([])
        for detections in ([], [found((1, 1, 9, 9))]):
            metrics = scored(truth, detections, evaluator=evaluator, per_class=True)
            assert all(math.isnan(value) for value in (metrics.values | metrics.per_class).values())

    def test_an_empty_data_set_is_undefined(self, evaluator):
        nothing = {"images": [], "categories": [], "annotations": []}
        metrics = compute_metrics(nothing, [], evaluator=evaluator, per_class=True)
        assert all(math.isnan(value) for value in metrics.values.values())
        assert metrics.per_class == {}

    def test_what_falls_on_a_crowd_is_neither_right_nor_wrong(self, evaluator):
        truth = one_image([(10, 10, 20, 20), (50, 50, 100, 100)])
        truth["annotations"][1]["iscrowd"] = 1
        detections = [found((60, 60, 30, 30), 0.95), found((90, 90, 30, 30), 0.94), found((10, 10, 20, 20))]
        assert scored(truth, detections, evaluator=evaluator).values["AP"] == 100

    def test_area_bins_move_objects_between_small_medium_and_large(self, evaluator):
        truth, detections = one_image([(0, 0, 50, 50)]), [found((0, 0, 50, 50))]

        def sizes(bins):
            values = scored(truth, detections, area_bins=bins, evaluator=evaluator).values
            return [name for name in ("APs", "APm", "APl") if values[name] == 100]

        assert sizes((32.0**2, 96.0**2)) == ["APm"]
        assert sizes((60.0**2, 96.0**2)) == ["APs"]
        assert sizes((10.0**2, 40.0**2)) == ["APl"]

    def test_area_of_the_file_decides_the_bin_and_defaults_to_the_box(self, evaluator):
        detections = [found((0, 0, 50, 50))]
        mask = scored(one_image([(0, 0, 50, 50)], area=1000.0), detections, evaluator=evaluator)
        box = scored(one_image([(0, 0, 50, 50)]), detections, evaluator=evaluator)
        assert mask.values["APs"] == box.values["APm"] == 100
        assert math.isnan(mask.values["APm"])
        assert math.isnan(box.values["APs"])

    def test_max_detections_keeps_the_best_of_an_image(self, evaluator):
        noise = [found((100, 100, 5, 5), 0.9)] * 6
        truth, detections = one_image([(10, 10, 20, 20)]), [*noise, found((10, 10, 20, 20), 0.5)]
        assert scored(truth, detections, max_detections=7, evaluator=evaluator).values["AR100"] == 100
        assert scored(truth, detections, max_detections=6, evaluator=evaluator).values["AR100"] == 0

    def test_more_than_a_hundred_can_count(self, evaluator):
        boxes = [(x * 10, y * 10, 8, 8) for x in range(15) for y in range(15)]
        truth, detections = one_image(boxes), [found(box) for box in boxes]
        assert scored(truth, detections, evaluator=evaluator).values["AR100"] == pytest.approx(10000 / 225)
        metrics = scored(truth, detections, evaluator=evaluator, max_detections=300)
        assert metrics.values["AR100"] == 100

    def test_per_class_ap_is_by_name_and_averages_to_ap(self, evaluator):
        truth = one_image([(10, 10, 20, 20)])
        truth["annotations"].append(truth["annotations"][0] | {"category_id": 2})
        metrics = scored(truth, [found((10, 10, 20, 20))], per_class=True, evaluator=evaluator)
        assert metrics.per_class == {"cat": 100, "dog": 0}
        assert metrics.values["AP"] == 50

    def test_categories_that_share_a_name_are_told_apart(self, evaluator):
        truth = one_image([(10, 10, 20, 20)])
        truth["categories"][1]["name"] = "cat"
        metrics = scored(truth, [found((10, 10, 20, 20))], per_class=True, evaluator=evaluator)
        assert metrics.per_class["cat (id 1)"] == 100
        assert math.isnan(metrics.per_class["cat (id 2)"])

    def test_annotation_ids_do_not_matter(self, evaluator):
        truth, detections = one_image([(10, 10, 20, 20), (60, 60, 50, 50)]), [found((10, 10, 20, 20))]
        expected = scored(truth, detections, evaluator=evaluator)
        assert expected.values["AP50"] == 50.495049505  # 51 of 101 recall levels
        for ids in ((0, 1), (7, 7), (-1, 0)):
            for annotation, number in zip(truth["annotations"], ids):
                annotation["id"] = number
            assert bits(scored(truth, detections, evaluator=evaluator)) == bits(expected)
        for annotation in truth["annotations"]:
            del annotation["id"]
        assert bits(scored(truth, detections, evaluator=evaluator)) == bits(expected)

    def test_image_ids_beyond_float_precision_stay_apart(self, evaluator):
        truth = one_image([(10, 10, 20, 20)])
        truth["images"] = [{"id": 2**53}, {"id": 2**53 + 1}]
        truth["annotations"][0]["image_id"] = 2**53 + 1
        detections = [found((10, 10, 20, 20), image_id=2**53)]
        assert scored(truth, detections, evaluator=evaluator).values["AP"] == 0
        detections = [found((10, 10, 20, 20), image_id=2**53 + 1)]
        assert scored(truth, detections, evaluator=evaluator).values["AP"] == 100

    def test_the_callers_data_is_left_alone_and_nothing_is_printed(self, evaluator, capfd):
        ground_truth, detections = random_set(3)
        before = json.dumps([ground_truth, detections])
        scored(ground_truth, detections, evaluator=evaluator, area_bins=(5.0, 77.0), max_detections=7)
        assert json.dumps([ground_truth, detections]) == before
        assert capfd.readouterr() == ("", "")


class TestChoice:
    def test_auto_is_hotcoco(self):
        assert scored(one_image([]), []).evaluator == "hotcoco"

    def test_auto_falls_back_to_pycocotools_where_hotcoco_is_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "hotcoco", None)
        metrics = scored(one_image([(10, 10, 20, 20)]), [found((10, 10, 20, 20))])
        assert (metrics.evaluator, metrics.values["AP"]) == ("pycocotools", 100)

    def test_asking_for_a_missing_hotcoco_is_an_error(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "hotcoco", None)
        with pytest.raises(UserError, match=r"'hotcoco' cannot be imported.*choose 'pycocotools'"):
            scored(one_image([]), [], evaluator="hotcoco")

    @pytest.mark.parametrize("bins", [(96.0**2, 32.0**2), (0.0, 10.0), (10.0, 10.0)])
    def test_area_bins_must_grow(self, bins):
        with pytest.raises(UserError, match="area_bins must be two growing areas"):
            scored(one_image([]), [], area_bins=bins)


UNKNOWN_CLASS = json.dumps([found((1, 2, 3, 4), category_id=18)])


class TestFiles:
    @pytest.mark.skipif(not COCO_CHECK.is_dir(), reason=f"{COCO_CHECK} is absent")
    @pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
    def test_the_twelve_published_numbers_of_the_coco_api(self, evaluator):
        metrics = score_files(
            COCO_CHECK / "instances_val2014_100.json",
            COCO_CHECK / "instances_val2014_fakebbox100_results.json",
            evaluator=evaluator,
        )
        printed = {name: f"{value / 100:.3f}" for name, value in metrics.values.items() if name != "AP90"}
        published = "0.505 0.697 0.573 0.586 0.519 0.501 0.387 0.594 0.595 0.640 0.566 0.564"
        assert " ".join(printed.values()) == published

    def test_scores_two_files(self, tmp_path):
        annotations, detections = tmp_path / "A.json", tmp_path / "D.json"
        annotations.write_text(json.dumps(one_image([(10, 10, 20, 20)])))
        detections.write_text(json.dumps([found((10, 10, 20, 20))]))
        metrics = score_files(annotations, detections, per_class=True)
        assert metrics.values["AP"] == metrics.per_class["cat"] == pytest.approx(100)

    @pytest.mark.parametrize(
        ("annotations", "detections", "message"),
        [
            (None, "[]", r"A\.json: no such file"),
            ("{}", "[]", r"A\.json: the list 'images' is missing, so this is not a COCO annotation file"),
            ("[1]", "[]", r"A\.json: expected a COCO object"),
            ("good", None, r"D\.json: no such file"),
            ("good", "{oops", r"D\.json: not a JSON file: .*line 1 column 2"),
            ("good", '{"a": 1}', r"D\.json: expected a list of detections, got an object"),
            ("good", b"\xff\xfe[", r"D\.json: not a JSON file"),
            ("good", UNKNOWN_CLASS, r"D\.json: entry 0 has category_id 18, .*A\.json \(2 ids, 1 to 2\)"),
        ],
    )  # fmt: skip
    def test_faults_are_one_line_that_names_the_file(self, tmp_path, annotations, detections, message):
        good = json.dumps(one_image([(10, 10, 20, 20)]))
        for name, content in (("A.json", annotations), ("D.json", detections)):
            content = good if content == "good" else content
            if content is not None:
                (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match=message) as error:
            score_files(tmp_path / "A.json", tmp_path / "D.json")
        assert "\n" not in str(error.value)

    def test_a_folder_is_not_a_file(self, tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            score_files(tmp_path, tmp_path)


class TestToCocoResults:
    categories = Categories(names=("cat", "dog"), coco_ids=(17, 4))

    def target(self, *, size=(100, 200), scale=(1.0, 1.0)):
        return {"image_id": 42, "size": size, "scale": scale}

    def output(self, boxes, scores, labels):
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "scores": torch.tensor(scores, dtype=torch.float32),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }

    def test_boxes_return_to_original_pixels_as_xywh(self):
        output = self.output([[20, 40, 60, 120]], [0.75], [1])
        (result,) = to_coco_results([output], [self.target(scale=(2.0, 4.0))], self.categories)
        assert result == {"image_id": 42, "category_id": 4, "bbox": [10.0, 10.0, 20.0, 20.0], "score": 0.75}

    def test_boxes_are_clipped_to_the_image(self):
        output = self.output([[-30, -10, 500, 50], [300, 300, 310, 320]], [0.9, 0.8], [0, 0])
        results = to_coco_results([output], [self.target(size=(100, 200))], self.categories)
        assert [result["bbox"] for result in results] == [[0, 0, 200, 50], [200, 100, 0, 0]]

    def test_scores_are_exact_and_everything_is_plain_data(self):
        output = self.output([[0, 0, 10, 10]], [0.123456789], [0])
        results = to_coco_results([output], [self.target()], self.categories)
        assert results[0]["score"] == float(np.float32(0.123456789))
        assert json.loads(json.dumps(results)) == results

    def test_images_without_detections_give_no_results(self):
        empty, full = self.output([], [], []), self.output([[0, 0, 10, 10]], [0.5], [0])
        results = to_coco_results([empty, full], [self.target(), self.target()], self.categories)
        assert len(results) == 1
        assert to_coco_results([], [], self.categories) == []

    def test_half_precision_outputs_are_accepted(self):
        output = self.output([[0, 0, 10, 10]], [0.5], [0])
        output = {"boxes": output["boxes"].bfloat16(), "scores": output["scores"].bfloat16()} | {
            "labels": output["labels"]
        }
        assert to_coco_results([output], [self.target()], self.categories)[0]["bbox"] == [0, 0, 10, 10]

    def test_ground_truth_written_as_results_scores_100(self):
        truth = one_image([(10, 10, 20, 20), (60, 60, 50, 50)], category_id=17)
        truth["images"][0]["id"] = 42
        for annotation in truth["annotations"]:
            annotation["image_id"] = 42
        truth["categories"] = self.categories.to_coco()
        output = self.output([[15, 15, 45, 45], [90, 90, 165, 165]], [0.9, 0.8], [0, 0])
        results = to_coco_results([output], [self.target(size=(200, 200), scale=(1.5, 1.5))], self.categories)
        assert scored(truth, results).values["AP"] == 100
