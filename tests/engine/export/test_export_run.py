"""A run as a file: every alignment, both formats, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

from aligncli.build import build_model
from aligncli.data.dataset import Categories
from aligncli.engine.checkpoint import save_weights
from aligncli.engine.export import export_run as module
from aligncli.engine.export.contract import Contract
from aligncli.engine.export.export_run import export_run
from aligncli.engine.export.lowering import Lowering
from aligncli.engine.export.verify import Agreement, open_onnx
from aligncli.engine.export.write import Format
from aligncli.engine.inference import load_run
from aligncli.engine.run_folder import RunFolder
from aligncli.errors import UserError
from tests.helpers import tiny_recipe
from tests.test_docs import python_blocks

SHAPES = Categories(("ellipse", "rectangle", "triangle", "diamond", "cross", "ring"), (1, 2, 3, 4, 5, 6))
SMALL = {"data.num_val": 3, "data.image_size": 64, "input.max_short_side": 64, "input.long_side": 64}
SMALL |= {"input.min_short_side": 64, "model.postprocess.score_threshold": 0.004}
NO_TOWER = {"num_convs": 0, "channels": 64, "norm": "none", "init": "gaussian"}
ALIGNDET = SMALL | {"model.neck.levels": (3, 4), "model.adm.num_convs": 0, "model.dpm.tower": NO_TOWER}


def make_run(folder: Path, name: str, changes: dict[str, object]) -> Path:
    """A run folder with random weights, which detect a lot; predictors are made to differ from location to location."""
    torch.manual_seed(0)
    recipe = tiny_recipe(name, changes)
    model = build_model(recipe, num_classes=len(SHAPES))
    for parameter_name, parameter in model.named_parameters():
        if "predictor" in parameter_name and parameter.dim() == 4:
            torch.nn.init.normal_(parameter, std=0.02)
    run = RunFolder(folder)
    run.create(recipe, SHAPES, device="cpu")
    save_weights(model, run.weights_path)
    return folder


@pytest.fixture(scope="module")
def aligndet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("aligndet"), "aligndet_small", ALIGNDET)


def require_agreement(agreement: Agreement | None) -> None:
    """The file and the run detect the same, and something."""
    assert agreement is not None
    assert agreement.num_images == 3
    assert agreement.num_own == agreement.num_exported > 100
    assert agreement.num_unpaired == 0
    assert agreement.box_difference < 1e-2
    assert agreement.score_difference < 1e-4
    assert agreement.own_ap == pytest.approx(agreement.exported_ap, abs=1e-6, nan_ok=True)


@pytest.mark.slow
def test_a_torch_file_holds_torch_s_and_torchvision_s_operators_alone(
    aligndet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it runs as docs/export.md says."""
    path = tmp_path / "model.pt2"
    exported = export_run(aligndet, path, format=Format.torch, size=(128, 160), verify_images=3)
    require_agreement(exported.agreement)
    extra = {"aligncli": ""}
    program = torch.export.load(exported.path, extra_files=extra)
    targets = [node.target for node in program.graph.nodes]
    namespaces = {target.namespace for target in targets if isinstance(target, torch._ops.OpOverload)}
    assert namespaces <= {"aten", "torchvision", "prim"}
    monkeypatch.chdir(tmp_path)
    _, block = python_blocks("export.md")
    namespace: dict[str, Any] = {}
    exec(compile(block, "docs/export.md", "exec"), namespace)
    assert namespace["about"]["input"]["shape"] == [1, 3, 128, 160]
    assert namespace["boxes"].shape == (1, 100, 4)


@pytest.mark.slow
def test_a_file_for_any_size_says_the_least_one_and_how_much_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3 to P7, a divisor that is not one of the coarsest stride, fewer candidates than the limit of detections."""
    changes = {"input.size_divisor": 24, "model.neck.levels": (3, 4, 5, 6, 7), "model.head.tower": NO_TOWER}
    changes |= {"model.postprocess.candidates_per_level": 7}
    run = make_run(tmp_path / "run", "retinanet_small_fpn", SMALL | changes)
    exported = export_run(run, tmp_path / "model.pt2", format=Format.torch, verify_images=1)
    assert exported.agreement is not None
    assert exported.agreement.num_own == exported.agreement.num_exported > 10
    monkeypatch.chdir(tmp_path)
    _, block = python_blocks("export.md")
    namespace: dict[str, Any] = {}
    exec(compile(block, "docs/export.md", "exec"), namespace)
    about = namespace["about"]
    assert about["input"]["at_least"] == 264  # two cells of stride 128 are 256
    assert namespace["images"].shape == (1, 3, 264, 264)
    outputs = {name: list(namespace[name].shape) for name in ("boxes", "scores", "labels")}
    assert about["outputs"] == outputs == {"boxes": [1, 35, 4], "scores": [1, 35], "labels": [1, 35]}


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ["conv", "deform", "guided", "roi_conv"])
def test_every_alignment_runs_in_onnxruntime(alignment: str, tmp_path: Path) -> None:
    changes = ALIGNDET | {"model.neck.levels": (3,), "model.adm.alignment": alignment}
    run = make_run(tmp_path / "run", "aligndet_small", changes)
    exported = export_run(
        run,
        tmp_path / "model.onnx",
        format=Format.onnx,
        size=(64, 64),
        lowering=Lowering.deform_conv if alignment == "guided" else Lowering.grid_sample,
        batch=2,
        verify_images=3,
    )
    require_agreement(exported.agreement)
    operators = {node.op_type for node in onnx.load(exported.path).graph.node}
    wanted = {"conv": set(), "guided": {"DeformConv"}}.get(alignment, {"GridSample"})
    assert operators & {"DeformConv", "GridSample"} == wanted


@pytest.mark.slow
def test_retinanet_with_several_rois_a_cell_runs_in_onnxruntime(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "retinanet_small_p2_roiconv", SMALL | {"model.head.tower": NO_TOWER})
    exported = export_run(run, tmp_path / "m.onnx", format=Format.onnx, size=(64, 64), verify_images=3)
    require_agreement(exported.agreement)
    assert "DeformConv" in {node.op_type for node in onnx.load(exported.path).graph.node}


@pytest.mark.parametrize(("candidates", "returned"), [(1000, 100), (50, 100), (7, 14)])
def test_a_file_returns_no_more_than_the_candidates_of_its_levels(
    tmp_path: Path, candidates: int, returned: int
) -> None:
    changes = ALIGNDET | {"model.postprocess.candidates_per_level": candidates}  # two levels, up to 100 detections
    loaded = load_run(make_run(tmp_path / "run", "aligndet_small", changes))
    outputs = Contract.of(loaded, size=None, batch=3).describe(loaded, None)["outputs"]
    assert outputs == {"boxes": [3, returned, 4], "scores": [3, returned], "labels": [3, returned]}


@pytest.mark.parametrize(("divisor", "least"), [(1, 32), (16, 32), (24, 48), (28, 56), (12, 36)])
def test_the_least_size_is_a_multiple_of_the_divisor(tmp_path: Path, divisor: int, least: int) -> None:
    loaded = load_run(make_run(tmp_path / "run", "aligndet_small", ALIGNDET | {"input.size_divisor": divisor}))
    contract = Contract.of(loaded, size=None, batch=1)
    assert contract.least == least
    assert all(side % divisor == 0 for side in contract.example().shape[2:])


def test_two_stages_are_refused_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "faster_rcnn_small_fpn", {})
    with pytest.raises(UserError, match=r"_small_fpn' cannot be exported: a FasterRCNN detects in two") as error:
        export_run(run, tmp_path / "model.pt2", format=Format.torch)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize("size", [(64, 90), (0, 64), (32, 64)])
def test_a_size_that_does_not_fit_the_pyramid_is_refused(aligndet: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="must be a multiple of 32, and at least 64"):
        export_run(aligndet, tmp_path / "model.pt2", format=Format.torch, size=size)


def test_a_file_that_does_not_agree_is_not_written(
    aligndet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it replaces stays."""
    path = tmp_path / "model.pt2"
    path.write_bytes(b"the one before")
    differing = Agreement(
        num_images=2,
        num_own=40,
        num_exported=38,
        num_unpaired=2,
        box_difference=0.5,
        score_difference=0.2,
        own_ap=50.0,
        exported_ap=47.5,
    )
    monkeypatch.setattr(module, "write_detector", lambda *_: b"a file")
    monkeypatch.setattr(module, "verify", lambda *_, **__: differing)
    with pytest.raises(UserError, match=r"is not written.* on 2 images AP 47\.50 instead of 50\.00, 2 of 78"):
        export_run(aligndet, path, format=Format.torch, verify_images=2)
    assert path.read_bytes() == b"the one before"


def test_onnx_without_its_packages_says_the_line_that_installs_them(
    aligndet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"ONNX files need onnxscript .*: pip install 'aligncli\[export\]'"):
        export_run(aligndet, tmp_path / "model.onnx", format=Format.onnx)


def test_nans_of_both_are_no_difference_and_one_s_is() -> None:
    same = {"num_images": 1, "num_own": 1, "num_exported": 1, "num_unpaired": 0}
    close = {"box_difference": 0.0, "score_difference": 0.0}
    nan = float("nan")
    assert Agreement(**same, **close, own_ap=nan, exported_ap=nan).holds
    assert not Agreement(**same, **close, own_ap=nan, exported_ap=3.0).holds
    assert not Agreement(**same, **close | {"score_difference": 0.02}, own_ap=3.0, exported_ap=3.0).holds


def test_a_runtime_without_deform_conv_points_to_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 9 : Could not find an implementation for DeformConv(19)")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(UserError, match=r"cannot run the file .*DeformConv.*; --roi-conv grid_sample needs no"):
        open_onnx(b"")
