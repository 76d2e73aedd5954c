"""torchvision's detectors under our conventions give torchvision's own detections, in a data set's labels."""

import hashlib
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import WeightsEnum, get_model

from aligncli.data.dataset import Categories
from aligncli.engine import torchvision_models
from aligncli.engine.detectors import check_source, load_detector
from aligncli.engine.evaluate import evaluate_on_folder
from aligncli.engine.inference import predict_images
from aligncli.engine.reporter import SilentReporter
from aligncli.engine.torchvision_models import load_torchvision, torchvision_names
from aligncli.errors import CheckpointError, DataError, UserError
from tests.cli.command_line import make_data_folder

SSDLITE = "torchvision:ssdlite320_mobilenet_v3_large"  # the smallest
PERSON_AND_DOG = Categories(("person", "dog"), (1, 18))


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """torch's cache, without any weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 96, 128, generator=generator), torch.rand(3, 80, 96, generator=generator)]


def random_network(name: str, **options):
    """Random weights, none of them trivial, with scores that pass every cut."""
    torch.manual_seed(0)
    network = get_model(name, weights=None, weights_backbone=None, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if parameter_name.endswith(("cls_logits.bias", "cls_logits.weight", "cls_score.weight")):
                parameter.normal_(std=0.1)
    return network.eval()


@torch.inference_mode()
def detect(model):
    return model(images())


def accept_all_scores(network) -> None:
    (network.roi_heads if hasattr(network, "roi_heads") else network).score_thresh = 0.0


@pytest.mark.parametrize(
    "name",
    [
        "fcos_resnet50_fpn",
        "ssdlite320_mobilenet_v3_large",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("retinanet_resnet50_fpn_v2", marks=pytest.mark.slow),
        pytest.param("ssd300_vgg16", marks=pytest.mark.slow),
        pytest.param("fasterrcnn_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("fasterrcnn_resnet50_fpn_v2", marks=pytest.mark.slow),
    ],
)
def test_detections_are_torchvision_s_own_on_the_same_resized_image(name, tmp_path):
    resizes_to_a_fixed_size = name.startswith("ssd")
    theirs = random_network(name)
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    ours = load_torchvision(f"torchvision:{name}", weights=str(tmp_path / "weights.safetensors"))
    for network in (theirs, ours.model.network):
        accept_all_scores(network)
    if resizes_to_a_fixed_size:
        assert ours.input is None
    else:
        assert ours.input is not None
        assert ours.input.max_short_side == theirs.transform.min_size[-1]
        assert ours.input.long_side == theirs.transform.max_size
    found, wanted = [], []
    for image in images():  # one by one: in a batch the scores round otherwise, and near ones change places
        if not resizes_to_a_fixed_size:
            theirs.transform.min_size, theirs.transform.max_size = (min(image.shape[1:]),), max(image.shape[1:])
        with torch.inference_mode():
            wanted += theirs([image])
            found += ours.model([image])
    coco_ids = torch.tensor(ours.categories.coco_ids)
    for mine, other in zip(found, wanted, strict=True):
        known = torch.isin(other["labels"], coco_ids)  # random weights detect COCO's unused ids too
        assert known.sum() > 10
        assert torch.equal(coco_ids[mine["labels"]], other["labels"][known])
        torch.testing.assert_close(mine["boxes"], other["boxes"][known])
        torch.testing.assert_close(mine["scores"], other["scores"][known])


def test_the_categories_are_coco_s_eighty():
    categories = load_torchvision(SSDLITE, weights="none").categories
    assert len(categories) == 80
    assert dict(zip(categories.coco_ids, categories.names))[90] == "toothbrush"
    assert categories.names[0] == "person"
    assert 12 not in categories.coco_ids  # a gap


class FiveObjects(nn.Module):
    def forward(self, batch):
        found = {
            "boxes": torch.arange(20.0).view(5, 4),
            "scores": torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]),
            "labels": torch.tensor([18, 3, 1, 12, 18]),  # dog, car, person, unused, dog
        }
        return [found for _ in batch]


def test_a_data_set_s_labels_come_out_and_its_missing_classes_are_dropped():
    detector = load_torchvision(SSDLITE, weights="none")
    fitted = detector.on(PERSON_AND_DOG, source="data")
    assert fitted.model.network is detector.model.network
    fitted.model.network = FiveObjects()
    for found in detect(fitted.model):
        assert found["labels"].tolist() == [1, 0, 1]
        assert found["scores"].tolist() == pytest.approx([0.9, 0.7, 0.5])
        assert found["boxes"][:, 0].tolist() == [0.0, 8.0, 16.0]


@pytest.mark.parametrize(
    ("coco_id", "name", "message"),
    [
        (1, "fish", "category id 1 is 'fish', where COCO has 'person'"),
        (12, "street sign", "which COCO does not have"),
        (4000, "fish", "which COCO does not have"),
    ],
)
def test_other_classes_than_coco_s_are_refused(coco_id, name, message):
    detector = load_torchvision(SSDLITE, weights="none")
    with pytest.raises(DataError, match=message):
        detector.on(Categories((name,), (coco_id,)), source="data")


def test_names_are_those_of_box_detectors_and_a_typo_gets_the_nearest():
    assert {"fcos_resnet50_fpn", "ssd300_vgg16", "retinanet_resnet50_fpn_v2"} <= set(torchvision_names())
    with pytest.raises(UserError, match=r"did you mean torchvision:fcos_resnet50_fpn\?$"):
        load_torchvision("torchvision:fcos_resnet50")
    for name in ("maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "resnet50", ""):
        with pytest.raises(UserError, match="no box detector"):
            load_torchvision(f"torchvision:{name}", weights="none")


def test_nothing_is_fetched_unasked(empty_cache, monkeypatch):
    with pytest.raises(CheckpointError, match="add --download"):
        load_torchvision(SSDLITE)

    def offline(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError, match=r"https://.*\.pth cannot be fetched"):
        load_torchvision(SSDLITE, download=True)


def test_the_default_weights_come_from_torch_s_cache(empty_cache):
    empty_cache.mkdir(parents=True)
    theirs = random_network(SSDLITE.removeprefix("torchvision:"))
    torch.save(theirs.state_dict(), empty_cache / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth")
    ours = load_torchvision(SSDLITE)
    assert torch.equal(ours.model.network.state_dict()["head.classification_head.module_list.0.1.bias"],
                       theirs.state_dict()["head.classification_head.module_list.0.1.bias"])  # fmt: skip
    assert "ssdlite320_mobilenet_v3_large_coco-a79551df.pth" in ours.notes[0]


def test_torchvision_s_own_file_keeps_its_batch_norms_under_any_name(tmp_path, monkeypatch):
    """Its first RetinaNet divides by sqrt(variance + 0), everything else by sqrt(variance + 1e-5)."""
    name = "retinanet_resnet50_fpn"
    source = random_network(name)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 1e-6, 1e-5)
            nn.init.constant_(module.weight, 1e-3)
    path = tmp_path / "renamed.pth"
    torch.save(source.state_dict(), path)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: source.state_dict())
    theirs = get_model(name, weights="DEFAULT").eval()
    another = load_torchvision(f"torchvision:{name}", weights=str(path)).model.network
    prefix = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(torchvision_models, "_hash_prefix", lambda url: prefix)
    own = load_torchvision(f"torchvision:{name}", weights=str(path)).model.network
    with torch.inference_mode():
        batch = images()[0][None]
        wanted, same, different = (network.backbone(batch)["0"] for network in (theirs, own, another))
    torch.testing.assert_close(same, wanted)
    assert not torch.allclose(different, wanted, rtol=0.1)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_a_weight_file_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="aligncli never does"):
        load_torchvision(SSDLITE, weights="bomb.pth")
    assert not Path("exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))  # what a careless reader would have done
    assert Path("exploded").exists()


def test_wrong_weight_files_are_one_line(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "b.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "c.pth")
    for name, message in {
        "a.pth": "are damaged",
        "b.pth": "hold no tensors by name",
        "c.pth": "are not those of torchvision:ssdlite320",
        "d.pth": "do not exist",
        "e.safetensors": "do not exist",
        "f.txt": "expected default, none, or a .pth or .safetensors file",
    }.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            load_torchvision(SSDLITE, weights=str(tmp_path / name))
        assert "\n" not in str(caught.value)


class Listener(SilentReporter):
    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


def test_a_torchvision_detector_is_evaluated_on_a_folder(tmp_path):
    folder = make_data_folder(tmp_path / "data", classes=("person", "bicycle"))
    listener = Listener()
    evaluation = evaluate_on_folder(load_detector(SSDLITE, weights="none"), folder, per_class=True, reporter=listener)
    assert evaluation.num_images == 4
    assert set(evaluation.per_class) == {"person", "bicycle"}
    assert {record["category_id"] for record in evaluation.detections} <= {1, 2}
    assert listener.messages == ["weights: random, so what it detects means nothing"]
    with pytest.raises(DataError, match="where COCO has 'person'"):
        evaluate_on_folder(
            load_detector(SSDLITE, weights="none"), make_data_folder(tmp_path / "other", classes=("cat", "dog"))
        )


def test_predicted_boxes_are_in_pixels_of_the_original_whatever_the_network_s_size(tmp_path):
    Image.effect_noise((300, 200), 80).convert("RGB").save(tmp_path / "noise.png")
    detector = load_detector(SSDLITE, weights="none")
    accept_all_scores(detector.model.network)
    ((_, original, found),) = predict_images(detector, [tmp_path / "noise.png"], score_threshold=0.0)
    assert original.size == (300, 200)
    assert found["boxes"][:, 2].max() == 300.0  # some box of that many reaches the side
    assert found["boxes"][:, 3].max() == 200.0


def test_options_of_the_other_kind_of_source_are_refused(tmp_path):
    nothing = {"parts": {}, "weights": None, "download": False}
    for options in ({"weights": "none"}, {"download": True}):
        with pytest.raises(UserError, match="--weights and --download go with torchvision:NAME"):
            check_source(tmp_path, **nothing | options)
        check_source(SSDLITE, **nothing | options)
    with pytest.raises(UserError, match="needs no code of yours"):
        check_source(SSDLITE, **nothing | {"parts": {"part": object}})
    check_source(tmp_path, **nothing | {"parts": {"part": object}})
