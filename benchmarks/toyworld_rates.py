"""Choose the learning rate of each toy-world recipe on the val pictures, never on the test ones.

    python benchmarks/toyworld_rates.py [NAME ...] [--rates 1e-4,3e-4]

Prints a Markdown row a recipe: mAP in percent on "val" for each rate, one seed. What is best goes
into `taidpt.evaluation.recipes`. Needs the emoji font, which "train" and "val" are rendered with.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from taidpt.evaluation.recipes import RECIPES, Recipe
from taidpt.evaluation.reproduction import ReproductionJob, run_recipe
from taidpt.progress import SilentProgress

TEXT_RATES = (3e-4, 1e-3, 3e-3)
PICTURE_RATES = (3e-4, 2e-3, 1e-2)


def at_rate(recipe: Recipe, rate: float) -> Recipe:
    """The recipe with another learning rate."""
    if recipe.pictures is None:
        assert recipe.tuning is not None
        return replace(recipe, tuning=replace(recipe.tuning, lr=rate))
    settings = replace(recipe.pictures.settings, lr=rate)
    return replace(recipe, pictures=replace(recipe.pictures, settings=settings))


def tuned_recipes() -> list[str]:
    """The toy world's recipes that have a rate of their own: not means, not ensembles."""
    return [
        name
        for name, recipe in RECIPES.items()
        if recipe.dataset == "toyworld" and recipe.method in ("tai", "taidpt", "coop", "dualcoop")
    ]


def main() -> None:
    """Try the rates and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="recipes; all that are tuned by default")
    parser.add_argument("--cache", type=Path, help="where features are kept")
    parser.add_argument("--rates", help="with commas; by default three a kind of recipe")
    given = parser.parse_args()
    asked = tuple(float(rate) for rate in given.rates.split(",")) if given.rates else ()
    job = ReproductionJob(cache=given.cache, split="val")
    for name in given.names or tuned_recipes():
        recipe = RECIPES[name]
        rates = asked or (TEXT_RATES if recipe.pictures is None else PICTURE_RATES)
        found = {
            rate: run_recipe(at_rate(recipe, rate), 0, job, SilentProgress()).value
            for rate in rates
        }
        cells = " | ".join(f"{rate:g}: {value:.3f}" for rate, value in found.items())
        print(
            f"| `{name}` | {cells} | best {max(found, key=lambda rate: found[rate]):g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
