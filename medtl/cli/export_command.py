"""`medtl export`: results as DICOM, or the model in a form that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtl.cli.bars import bars
from medtl.cli.shared_options import RunFolder, there
from medtl.errors import MedtlError


def export(
    run_folder: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", help="new folder; --onnx: default RUN/onnx")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(callback=there, help="the images the run read: manifest or folder"),
    ] = None,
    dicom: Annotated[bool, typer.Option("--dicom", help="as DICOM: SR, SEG, SC, PDF")] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="the model, to predict with onnxruntime alone")
    ] = False,
    monai: Annotated[bool, typer.Option("--monai", help="the model, as a MONAI bundle")] = False,
    hugging_face: Annotated[
        bool, typer.Option("--hugging-face", help="the model, as a folder for the Hub")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="--onnx: in 8 bits; needs --images")] = False,
    prune: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="--onnx: share of inner channels to remove"),
    ] = 0.0,
    margin: Annotated[
        float, typer.Option(min=1e-6, help="--onnx: loss that would be acceptable")
    ] = 0.02,
    predictions: Annotated[
        Path | None,
        typer.Option(callback=there, help="what `medtl predict` wrote; default the test cases"),
    ] = None,
    case: Annotated[list[str] | None, typer.Option(help="only this case; repeatable")] = None,
    pdf: Annotated[
        Path | None, typer.Option(callback=there, help="a document for the case's study")
    ] = None,
    stow: Annotated[
        str | None, typer.Option(help="send the objects to this DICOMweb server too (STOW-RS)")
    ] = None,
) -> None:
    """Write results as DICOM objects of their patients, or the model for other programs."""
    if [dicom, onnx, monai, hugging_face].count(True) != 1:
        raise MedtlError(
            "one format is to be asked for",
            fix="Add one of --dicom, --onnx, --monai, --hugging-face",
        )
    from medtl.run.folder import Run

    if onnx:
        from medtl.run.edge.compress import Smaller
        from medtl.run.edge.write import export_graph

        asked = Smaller(int8=int8, prune=prune, images=images, margin=margin)
        with bars() as shown:
            folder = export_graph(Run(run_folder), out, asked, progress=shown.progress)
        print(f"Predict with it: medtl predict {folder if out else run_folder} IMAGES --out CSV")
        return
    if out is None:
        raise MedtlError("the result has no place", fix="Add --out DIR")
    if not dicom:
        from medtl.run.edge.foreign import Layout, export_layout

        layout: Layout = "monai" if monai else "hugging-face"
        print(f"Written: {export_layout(Run(run_folder), out, layout)}")
        return
    if images is None:
        raise MedtlError("--dicom needs the images", fix="Add --images IMAGES")
    with bars() as shown:
        done = Run(run_folder).export(
            out,
            images=images,
            predictions=predictions,
            case_ids=case or (),
            pdf=pdf,
            progress=shown.progress,
        )
    print(f"{done.objects} DICOM objects of {done.cases} cases: {out}")
    print("They name patients. Research use only.")
    if stow:
        from medtl.io.dicom.stow import store_objects
        from medtl.io.dicom.web import Server

        print(f"{store_objects(Server(stow), sorted(out.glob('*.dcm')))} objects sent")
    if done.left_out:
        print(f"{len(done.left_out)} cases left out, with the reasons in {out / 'export.json'}")
