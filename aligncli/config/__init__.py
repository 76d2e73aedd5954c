"""Recipes as frozen, typed data: every number of an experiment, nothing else.

A recipe is complete (no hidden defaults elsewhere), prints on one screen, travels with its run as JSON and
rebuilds it. `kind` fields tell the members of a union apart; `build.py` holds the one `match` statement for
each of them. model.py holds detectors, run.py everything around them, recipe.py the whole.
"""

from aligncli.config.base import Config
from aligncli.config.model import (
    ADMConfig,
    AlignDetConfig,
    AnchorConfig,
    BackboneConfig,
    FPNConfig,
    LossConfig,
    MatcherConfig,
    PostprocessConfig,
    RetinaNetConfig,
    RetinaNetDPMConfig,
    RoIConvConfig,
    SingleLevelConfig,
    TowerConfig,
)
from aligncli.config.recipe import Recipe, parse_recipe, recipe_keys
from aligncli.config.run import (
    AdamWConfig,
    CocoConfig,
    EvaluationConfig,
    InputConfig,
    OneCycleConfig,
    OpsConfig,
    ScheduleConfig,
    SGDConfig,
    ShapesConfig,
    StepDecayConfig,
)

__all__ = [
    "ADMConfig",
    "AdamWConfig",
    "AlignDetConfig",
    "AnchorConfig",
    "BackboneConfig",
    "CocoConfig",
    "Config",
    "EvaluationConfig",
    "FPNConfig",
    "InputConfig",
    "LossConfig",
    "MatcherConfig",
    "OneCycleConfig",
    "OpsConfig",
    "PostprocessConfig",
    "Recipe",
    "RetinaNetConfig",
    "RetinaNetDPMConfig",
    "RoIConvConfig",
    "SGDConfig",
    "ScheduleConfig",
    "ShapesConfig",
    "SingleLevelConfig",
    "StepDecayConfig",
    "TowerConfig",
    "parse_recipe",
    "recipe_keys",
]
