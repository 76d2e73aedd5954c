"""The examples that end each command's help. The tests hold every line against the real command line."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "train": (
        "aligncli train",
        "aligncli train photo --data my_data --out runs/mine",
        "aligncli train aligndet_r50 --data coco --download --nproc 8 --out runs/r50",
        "aligncli train --set schedule.iterations=200 --set model.adm.alignment.kernel_size=3",
        "aligncli train --resume --out runs/mine",
    ),
    "eval": (
        "aligncli eval runs/mine --per-class",
        "aligncli eval runs/mine --data other_data --split train",
        "aligncli eval torchvision:retinanet_resnet50_fpn --data coco --download",
        "aligncli eval --annotations instances_val.json --detections results.json",
    ),
    "predict": (
        "aligncli predict runs/mine cat.jpg dog.jpg --score 0.5",
        "aligncli predict torchvision:fcos_resnet50_fpn street.jpg --download",
    ),
    "analyze-alignment": (
        "aligncli analyze-alignment runs/mine",
        "aligncli analyze-alignment runs/conv runs/roiconv --out figures",
        "aligncli analyze-alignment --explain",
    ),
    "errors": ("aligncli errors runs/mine", "aligncli errors runs/conv runs/roiconv"),
    "report": ("aligncli report runs/mine", "aligncli report runs/conv runs/roiconv --out comparison.html"),
    "watch": ("aligncli watch runs/mine", "aligncli watch runs/mine --once --json"),
    "reproduce": ("aligncli reproduce --jobs 2", "aligncli reproduce --seeds 3 --dry-run"),
    "pilot": ("aligncli pilot --dry-run", "aligncli pilot --roiconv --seeds 3 --jobs 2"),
    "ablate": (
        "aligncli ablate alignment --seeds 3 --jobs 2",
        "aligncli ablate all --dry-run",
        "aligncli ablate kernel --scale coco --data coco --launcher slurm --slurm partition=gpu",
    ),
    "import": ("aligncli import retinanet_resnet50_fpn_coco.pth --out runs/imported",),
    "export": (
        "aligncli export runs/mine --verify",
        "aligncli export runs/mine --format torch --size 480x640 --batch 4",
        "aligncli export runs/mine --roi-conv grid_sample --out detector.onnx",
    ),
    "extract": ("aligncli extract runs/mine --out features.safetensors",),
    "doctor": ("aligncli doctor", "aligncli doctor --build", "aligncli doctor --json"),
    "recipes list": ("aligncli recipes list",),
    "recipes show": (
        "aligncli recipes show aligndet_r50",
        "aligncli recipes show quickstart --set model.adm.channels=64",
    ),
    "data check": (
        "aligncli data check my_data",
        "aligncli data check my_data --split train --fix fixed.json",
    ),
    "data stats": (
        "aligncli data stats my_data --split val",
        "aligncli data stats my_data --recipe photo_lite0",
        "aligncli data stats shapes",
    ),
    "data view": ("aligncli data view my_data --count 20 --out sheet.png",),
    "data convert": (
        "aligncli data convert yolo my_yolo --out my_data",
        "aligncli data convert voc VOC2007 --out my_data --val-share 0.1 --link",
    ),
    "data split": ("aligncli data split all.json --val-share 0.2 --out annotations",),
    "data download": ("aligncli data download coco --val-only", "aligncli data download coco --out /data/coco"),
    "runs list": ("aligncli runs list", "aligncli runs list studies"),
    "runs show": ("aligncli runs show runs/mine",),
    "runs compare": ("aligncli runs compare runs/conv runs/roiconv",),
    "bench op": ("aligncli bench op", "aligncli bench op --kernel 7 --out-channels 1024 --forward-only --peers conv2d"),
    "bench data": ("aligncli bench data", "aligncli bench data --data my_data --workers 2"),
    "bench eval": ("aligncli bench eval",),
    "bench train": (
        "aligncli bench train --quick",
        "aligncli bench train aligndet_r50 retinanet_r50 --batch 4",
        "aligncli bench train --vary size --vary objects=1,100,1000 --plot growth.png",
    ),
    "bench model": ("aligncli bench model", "aligncli bench model aligndet_r50 retinanet_r50 --height 480 --width 640"),
}


def epilog(words: str) -> str:
    """The end of a command's help; `words` are the command without `aligncli`. Empty without examples."""
    lines = EXAMPLES.get(words, ())
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)]) if lines else ""
