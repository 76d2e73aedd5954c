"""`aligncli recipes`: what there is to train, and every number of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aligncli.cli import options
from aligncli.cli.completion import complete_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligncli.analysis.complexity import Parameters
    from aligncli.catalog import Parts
    from aligncli.config import Recipe

NUM_SHAPES_CLASSES, NUM_COCO_CLASSES = 6, 80

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        autocompletion=complete_recipe,
        help="Name, or a .json file, or a .py file, which is code and is run.",
    ),
]


def list_recipes(*, json: options.Json = False) -> None:
    """List the packaged recipes."""
    from aligncli.catalog import load_recipe, recipe_names
    from aligncli.cli.render import Output

    output = Output(json=json)
    recipes = [load_recipe(name) for name in recipe_names()]
    for setting, listed in by_setting(recipes).items():
        rows = [(item.name, f"{item.summary} ({item.paper})" if item.paper else item.summary) for item in listed]
        output.table((setting, "what it trains (what the paper reports)"), rows, text_columns=2)
    output.line("aligncli recipes show RECIPE prints every number of one; aligncli train RECIPE runs it")
    output.data(
        [
            {
                "name": item.name,
                "summary": item.summary,
                "paper": item.paper,
                "iterations": item.schedule.iterations,
            }
            for item in recipes
        ]
    )


def by_setting(recipes: Sequence[Recipe]) -> dict[str, list[Recipe]]:
    """Recipes under the data that they want."""
    settings: dict[str, list[Recipe]] = {"embedded data, a CPU": [], "your images": [], "COCO": []}
    for recipe in recipes:
        if recipe.data.kind == "shapes":
            settings["embedded data, a CPU"].append(recipe)
        else:
            settings["COCO" if recipe.data.root else "your images"].append(recipe)
    return settings


def show_recipe(
    name: RecipeName,
    *,
    assignments: options.Assignments = None,
    code: options.Code = None,
    json: options.Json = False,
) -> None:
    """Print every number of a recipe.

    These are the keys that --set can change, and the model's parameters and FLOPs."""
    from aligncli.catalog import load_recipe_and_parts
    from aligncli.cli.render import Output
    from aligncli.config.describe import describe_model, recipe_sections
    from aligncli.overrides import parse_assignments

    output = Output(json=json)
    recipe, parts = load_recipe_and_parts(name)
    recipe = recipe.changed(parse_assignments(assignments or []))
    parts = {**parts, **options.read_code(code)}
    num_classes = NUM_SHAPES_CLASSES if recipe.data.kind == "shapes" else NUM_COCO_CLASSES
    height, width = input_size(recipe)
    with output.waiting("counting"):
        parameters, flops = measure(recipe, num_classes=num_classes, height=height, width=width, parts=parts)
    output.heading(recipe.name, recipe.summary)
    output.fields(
        {
            **({"paper": recipe.paper} if recipe.paper else {}),
            "is": describe_model(recipe.model),
            "parameters": f"{parameters.total / 1e6:.2f} M with {num_classes} classes, "
            f"{parameters.trainable / 1e6:.2f} M of them trained",
            "FLOPs": f"{sum(flops.values()) / 1e9:.4g} G for an image of {width} x {height}: "
            + ", ".join(f"{part} {count / 1e9:.4g}" for part, count in flops.items()),
            **recipe_sections(recipe),
        }
    )
    output.data(
        {
            "recipe": recipe.model_dump(mode="json"),
            "num_classes": num_classes,
            "parameters": parameters.total,
            "trainable_parameters": parameters.trainable,
            "flops": sum(flops.values()),
            "flops_by_part": flops,
            "height": height,
            "width": width,
        }
    )


def input_size(recipe: Recipe) -> tuple[int, int]:
    """Height and width of a landscape image of the widest shape allowed, padded as the detectors pad."""
    part = recipe.input
    divisor = part.size_divisor
    return -(-part.max_short_side // divisor) * divisor, -(-part.long_side // divisor) * divisor


def measure(
    recipe: Recipe, *, num_classes: int, height: int, width: int, parts: Parts
) -> tuple[Parameters, dict[str, int]]:
    """Parameters, and FLOPs by part of one forward pass; no weight is initialised, shapes are enough."""
    import torch

    from aligncli.analysis.complexity import count_flops, count_parameters
    from aligncli.build import build_model

    with torch.device("meta"):
        model = build_model(recipe, num_classes=num_classes, parts=parts)
    model.to_empty(device="cpu")
    return count_parameters(model), count_flops(model, height, width)
