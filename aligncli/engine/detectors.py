"""A detector by its source: a run folder, or `torchvision:NAME`. What every command that uses one calls."""

from pathlib import Path

from aligncli.build import NO_PARTS, Parts
from aligncli.engine.inference import LoadedDetector, load_run
from aligncli.engine.torchvision_models import PREFIX, load_torchvision
from aligncli.errors import UserError


def is_torchvision(source: str | Path) -> bool:
    """Whether a source names a detector of torchvision's."""
    return str(source).startswith(PREFIX)


def load_detector(
    source: str | Path,
    *,
    device: str = "cpu",
    parts: Parts = NO_PARTS,
    weights: str | None = None,
    download: bool = False,
    amp: str | None = None,
    compiled: bool = False,
) -> LoadedDetector:
    """The detector in evaluation mode on the device; `on(categories)` fits it to a data set.

    Args:
        source: a run folder, or `torchvision:NAME`.
        parts: of a run that has some of its own; torchvision's need none.
        weights, download: of a torchvision detector, see `load_torchvision`; a run has its own.
        amp, compiled: see `LoadedDetector.tuned`.

    Raises UserErrors.
    """
    if is_torchvision(source):
        loaded = load_torchvision(str(source), weights=weights or "default", download=download, device=device)
    else:
        loaded = load_run(Path(source), device=device, parts=parts)
    return loaded.tuned(amp=amp, compiled=compiled)


def check_source(source: str | Path, *, parts: Parts, weights: str | None, download: bool) -> None:
    """Raises UserError for what goes with the other kind of source, where a command has one source alone."""
    if is_torchvision(source) and parts:
        raise UserError(f"--code goes with a run: {source} needs no code of yours")
    if not is_torchvision(source) and (weights is not None or download):
        raise UserError(f"--weights and --download go with torchvision:NAME: the run {source} has its own weights")
