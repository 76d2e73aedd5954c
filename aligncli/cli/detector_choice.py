"""The detector that a command's options name: a run or one of torchvision's, where and how it is to run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aligncli.cli import options

if TYPE_CHECKING:
    from aligncli.catalog import Parts
    from aligncli.engine.inference import LoadedDetector


@dataclass(frozen=True, kw_only=True)
class DetectorChoice:
    """What the options say; amp None is the detector's own precision."""

    source: str
    parts: Parts
    weights: str | None
    download: bool
    amp: options.AnyPrecision | None
    compiled: bool
    device: str

    @property
    def precision(self) -> str | None:
        """As the engine names it."""
        return None if self.amp is None else self.amp.value

    def checked(self) -> DetectorChoice:
        """With a device of this machine, in a process that is prepared. Raises UserErrors before anything is loaded."""
        from aligncli.engine.detectors import check_source
        from aligncli.engine.process import prepare_process

        prepare_process()
        check_source(self.source, parts=self.parts, weights=self.weights, download=self.download)
        return replace(self, device=options.pick_device(self.device))

    def load(self) -> LoadedDetector:
        """To detect with in this process. Raises UserErrors."""
        from aligncli.engine.detectors import load_detector

        return load_detector(
            self.source,
            device=self.device,
            parts=self.parts,
            weights=self.weights,
            download=self.download,
            amp=self.precision,
            compiled=self.compiled,
        )
