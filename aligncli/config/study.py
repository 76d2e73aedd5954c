"""A study: one table of the paper as data, its rows at every scale, and what the paper claims about them."""

from typing import Annotated, Literal

from pydantic import Field

from aligncli.config.base import Config
from aligncli.config.recipe import Recipe

Scale = Literal["small", "coco", "photo"]


class Row(Config):
    """One row of a table. Without recipes it is cited: printed beside the others, never measured."""

    name: str  # unique within the study; claims refer to it
    label: str
    detail: str = ""  # of a cited row: backbone, input and speed as printed
    baseline: str = ""  # name of the row whose AP this one's is compared with
    paper: dict[str, float] = Field(default_factory=dict)  # AP... in percent, "ms" a forward pass
    recipes: dict[Scale, Recipe] = Field(default_factory=dict)

    @property
    def cited(self) -> bool:
        """Whether the row only stands beside the others."""
        return not self.recipes


class Claim(Config):
    """A statement about rows: every sum of `weights[row] * metric(row)` is above zero.

    `({"roi_conv": 1, "conv": -1},)` says that RoIConv beats conv. Sums are taken seed by seed, so what the
    rows of a seed share (data, pre-training) drops out of the spread.
    """

    text: str
    weights: tuple[dict[str, float], ...]
    metric: str = "AP"


class Study(Config):
    """One experiment of the paper."""

    name: str  # as `aligncli ablate NAME` takes it
    table: str  # "Table 4"
    title: str
    metrics: Annotated[tuple[str, ...], Field(min_length=1)]  # the first is the one that baselines compare
    measured_by: Literal["evaluation", "alignment"] = "evaluation"  # COCO metrics, or Figure 4's IoUs
    submits: bool = False  # detections on test-dev are written for COCO's server
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    claims: tuple[Claim, ...] = ()
    note: str = ""  # what a reader must know of the small scale
