"""`medtl weights ...`: what is known of published weights, and whether a file is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtl.cli.shared_options import refuse_missing

weights_app = typer.Typer(
    help="Published weights: which are known, what they expect, whether a file is whole.",
    no_args_is_help=True,
)


def _file(path: Path) -> Path | None:
    return refuse_missing(path, "weights file")


WeightsFile = Annotated[Path, typer.Argument(metavar="FILE", callback=_file)]


@weights_app.command("list")
def weights_list() -> None:
    """List the weights cards: name, network, input, licence."""
    from medtl.networks.pretrained.cards import all_cards

    for card in all_cards().values():
        print(f"{card.name:<24} {card.backbone:<30} {card.input_said}; {card.licence}")


@weights_app.command("show")
def weights_show(name: Annotated[str, typer.Argument(metavar="CARD")]) -> None:
    """Show a weights card, and what a recipe states to take it."""
    from medtl.networks.pretrained.cards import find_card

    print(find_card(name).described)


@weights_app.command("check")
def weights_check(
    path: WeightsFile,
    card: Annotated[
        str | None, typer.Option("--card", help="its weights card; without it, say which fit")
    ] = None,
) -> None:
    """Load a file by its card: every tensor's fate, and the known output where there is one."""
    if card is None:
        from medtl.networks.pretrained.which_card import fitting_cards

        print(fitting_cards(path))
        return
    from medtl.networks.pretrained.reference import check_weights

    print(check_weights(path, card))


@weights_app.command("convert")
def weights_convert(
    path: WeightsFile,
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors")],
    card: Annotated[
        str | None, typer.Option("--card", help="names as its network has them")
    ] = None,
) -> None:
    """Write a file's tensors as safetensors; a pickled network is read and never run."""
    from medtl.networks.pretrained.reference import convert_weights

    print(convert_weights(path, out, card))
