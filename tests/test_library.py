"""`from aligncli import ...`: what a program of one's own starts with."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import aligncli
from aligncli import RoIConv2d, build_detector, load_run
from aligncli.errors import CheckpointError, RecipeError, UserError
from tests.helpers import random_batch

SMALL = {"model.adm.channels": 16, "model.adm.num_convs": 1}
NO_TORCH = """
import sys
import aligncli
aligncli.__version__, dir(aligncli), hasattr(aligncli, "no_such_name")
assert not {"torch", "torchvision", "numpy"} & set(sys.modules)
from aligncli import RoIConv2d
assert "torch" in sys.modules
"""


def test_importing_the_package_imports_no_torch():
    ended = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_package_lists_what_it_gives():
    assert {"RoIConv2d", "build_detector", "load_run", "__version__"} <= set(dir(aligncli))
    for name in aligncli.__all__:
        assert getattr(aligncli, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = aligncli.no_such_name


def test_the_package_s_roi_conv_is_the_operator_s():
    from aligncli.ops import RoIConv2d as Original

    assert RoIConv2d is Original


def test_a_detector_trains_in_a_loop_of_one_s_own():
    torch.manual_seed(0)
    detector = build_detector("quickstart", num_classes=3, changes=SMALL)
    images, targets = random_batch()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    totals = []
    for _ in range(4):
        losses = detector(images, targets)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0]
    detections = detector.eval()(images)
    assert [set(found) for found in detections] == [{"boxes", "scores", "labels"}] * len(images)


def test_a_pretrained_detector_starts_from_the_recipe_s_weights():
    first, second = (build_detector("quickstart", num_classes=3, changes=SMALL, pretrained=True) for _ in range(2))
    random = build_detector("quickstart", num_classes=3, changes=SMALL)
    name = next(name for name, _ in first.backbone.named_parameters())
    parameter = {key: dict(model.backbone.named_parameters())[name] for key, model in enumerate((first, second))}
    assert torch.equal(parameter[0], parameter[1])
    assert not torch.equal(parameter[0], dict(random.backbone.named_parameters())[name])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"recipe": "quikstart", "num_classes": 3}, RecipeError, "did you mean 'quickstart'"),
        ({"recipe": "quickstart", "num_classes": 3, "changes": {"model.adm.chanels": 1}}, RecipeError, "channels"),
        ({"recipe": "quickstart", "num_classes": 0}, UserError, "num_classes must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        build_detector(**arguments)
    assert "\n" not in str(raised.value)


def test_a_run_is_loaded_by_a_path_or_its_text(tmp_path: Path):
    for run in (tmp_path, str(tmp_path)):
        with pytest.raises(CheckpointError, match=r"holds no recipe\.json"):
            load_run(run)
