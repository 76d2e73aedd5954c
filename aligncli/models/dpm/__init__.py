"""Dense proposal modules (section 4.3): any head that gives every location one box.

The contract, a `DenseProposalModule`: from the maps and their geometry to one box a cell and level,
(N, H * W, 4) xyxy pixels, finite, inside the image, detached from the graph; and, in training, losses.
"""

from typing import Protocol

from torch import Tensor

from aligncli.matching import GroundTruth
from aligncli.models.detector import Geometry


class DenseProposalModule(Protocol):
    """What AlignDet asks of a DPM."""

    def __call__(
        self, features: list[Tensor], geometry: Geometry, truth: GroundTruth | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Refined anchors a level, and losses by name (empty without `truth`)."""
        ...
