"""A run as a file that runs without aligncli: traced, written, compared with the run, only then put in its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aligncli.build import NO_PARTS, Parts, build_dataset
from aligncli.catalog import on_folder
from aligncli.engine.disk import write_file
from aligncli.engine.export.contract import Contract
from aligncli.engine.export.lowering import Lowering
from aligncli.engine.export.verify import Agreement, verify
from aligncli.engine.export.write import Format, require_packages, write_detector
from aligncli.engine.inference import load_run
from aligncli.engine.reporter import Reporter, SilentReporter
from aligncli.errors import UserError


@dataclass(frozen=True)
class Exported:
    """What was written; `agreement` where it was compared."""

    path: Path
    num_bytes: int
    contract: Contract
    agreement: Agreement | None


def export_run(
    run_dir: Path,
    out: Path,
    *,
    format: Format,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    lowering: Lowering = Lowering.deform_conv,
    verify_images: int = 0,
    data: Path | None = None,
    parts: Parts = NO_PARTS,
    reporter: Reporter | None = None,
) -> Exported:
    """Write the newest weights of a run as `out`, whole or not at all.

    Args:
        size: (height, width) of the input in pixels; None: any multiple of the detector's divisor.
        lowering: how RoIConv is written.
        verify_images: how many validation images, of the run's own data or of the COCO folder `data`, both are
            compared on; 0: none.

    Raises UserErrors: where packages are missing, where the detector cannot be exported, and where the file does not
    detect what the run does; then nothing is written.
    """
    reporter = reporter or SilentReporter()
    require_packages(format)
    if out.is_dir():
        raise UserError(f"{out} is a folder: expected the name of a file for the detector")
    loaded = load_run(run_dir, parts=parts)
    contract = Contract.of(loaded, size=size, batch=batch)
    dataset = None
    if verify_images:
        dataset = build_dataset(loaded.recipe if data is None else on_folder(loaded.recipe, data), "val")
        loaded.on(dataset.categories, source=str(data or f"data of {run_dir}"))
    content = write_detector(loaded, format, contract, lowering)
    agreement = None
    if dataset is not None:
        agreement = verify(content, format, contract, loaded, dataset, num_images=verify_images, reporter=reporter)
        if not agreement.holds:
            raise UserError(
                f"{out} is not written, as it does not detect what {run_dir} does: on {agreement.num_images} images "
                f"AP {agreement.exported_ap:.2f} instead of {agreement.own_ap:.2f}, {agreement.num_unpaired} of "
                f"{agreement.num_own + agreement.num_exported} detections without a counterpart, scores up to "
                f"{agreement.score_difference:.2g} apart; try the other --roi-conv"
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, content)
    return Exported(out, len(content), contract, agreement)
