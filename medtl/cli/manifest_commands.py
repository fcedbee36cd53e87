"""`medtl manifest ...`: the commands that make, check and translate manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medtl.cli.bars import bars
from medtl.cli.shared_options import Out, spread
from medtl.cli.spread_commands import Shares, do_in_shares
from medtl.errors import MedtlError

manifest_app = typer.Typer(help="Make, check and split manifests.", no_args_is_help=True)

ManifestOut = Annotated[
    Path | None, typer.Option("--out", help="manifest to write; default FOLDER/manifest.csv")
]


@manifest_app.command("scan")
@spread
def manifest_scan(
    folder: Annotated[Path, typer.Argument(help="walked for DICOM files")],
    *,
    out: ManifestOut = None,
    per: Annotated[Literal["image", "series"], typer.Option(help="one row per")] = "image",
    shares: Shares,
) -> None:
    """Write a manifest from DICOM headers, without names, with pseudonymous ids."""
    from medtl.cases.intake.scan import scan_dicom
    from medtl.cases.manifest import place_for, write_manifest_of
    from medtl.cases.pseudonyms import load_salt, remember

    path = place_for(folder, out)
    if shares.are_asked:
        from medtl.run.spread.jobs import ScanJob

        do_in_shares(ScanJob(str(folder.absolute()), str(path.absolute()), per), shares)
        return
    with bars() as shown:
        found = scan_dicom(
            folder,
            per=per,
            salt=load_salt(),
            progress=lambda done, total: shown.progress("Reading headers", done, total),
        )
    remember(found.identities.items())
    write_manifest_of(folder, found.rows, path)
    print(f"{len(found.rows)} rows: {path}")
    print("\n".join([*found.notes, *found.left_out]))


@manifest_app.command("import")
def manifest_import(
    folder: Annotated[Path, typer.Argument(help="a data set as it was released")],
    layout: Annotated[
        str, typer.Option(help="name of a data set (medtl manifest layouts), or a YAML of your own")
    ],
    out: ManifestOut = None,
    fold: Annotated[int | None, typer.Option(help="nnU-Net: fold to take train and val of")] = None,
    partial: Annotated[
        bool, typer.Option(help="take the images that are there, however few")
    ] = False,
    where: Annotated[
        str | None, typer.Option(help="rows to take: 'view in [AP]'; '' for all")
    ] = None,
) -> None:
    """Write the manifest of a published data set from its folder, as it was released."""
    from medtl.cases.intake.layouts import Takes, import_layout
    from medtl.cases.releases.described import write_imported

    path = out or folder / "manifest.csv"
    found = import_layout(folder, layout, fold=fold, takes=Takes(partial, where))
    made = write_imported(found, folder, path)
    print(f"{len(found.rows)} rows: {path}")
    if made:
        print(f"{made} files were made for it, in {path.stem}_images or {path.stem}_masks")
    for note in found.notes:
        print(note)


@manifest_app.command("features")
def manifest_features(
    table: Annotated[Path, typer.Argument(help="vectors: .parquet, .csv, .tsv or .npz")],
    labels: Annotated[Path, typer.Option(help="sheet with patients and labels")],
    key: Annotated[str, typer.Option(help="column of both, by which they belong together")],
    out: Annotated[Path, typer.Option("--out", help="manifest to write; the vectors lie beside")],
    columns: Annotated[
        str | None, typer.Option(help="names of the features, 'f*'; default: all but the key")
    ] = None,
) -> None:
    """Write a manifest of embeddings made elsewhere, for a recipe with backbone: features."""
    from medtl.cases.intake.embeddings import join_features, write_features

    found = join_features(table, labels, key, columns)
    write_features(found, out)
    print(f"{len(found.rows)} rows: {out}, {out.with_suffix('.npy').name}")
    for note in found.notes:
        print(note)


@manifest_app.command("layouts")
def manifest_layouts(
    name: Annotated[str | None, typer.Argument(help="of a data set, for all that is known")] = None,
) -> None:
    """List the data sets that medtl knows; with a name: licence, what it expects, where to ask."""
    from medtl.cases.releases.shelf import about, names

    for one in [name] if name else names():
        told = about(one)
        print(f"{one:<22} {told.pop('title')}" + ("" if name else f"  [{told['licence']}]"))
        for key, text in told.items() if name else ():
            print(f"  {key.replace('_', ' ')}: {text}")


@manifest_app.command("export")
def manifest_export(
    manifest: Annotated[Path, typer.Argument(help="CSV or Parquet, with a column of masks")],
    out: Out,
    layout: Annotated[Literal["msd", "nnunet"], typer.Option(help="of which tool")],
    mask: Annotated[str, typer.Option(help="column of the masks")] = "mask",
) -> None:
    """Write volumes and masks as a folder that a Decathlon reader or nnU-Net takes."""
    from medtl.cases.columns import Columns
    from medtl.cases.intake.layout_export import export_layout
    from medtl.cases.manifest import read_manifest

    count = export_layout(read_manifest(manifest, Columns(mask=mask)), out, layout, name=out.name)
    print(f"{count} cases: {out}")


@manifest_app.command("check")
def manifest_check(
    manifest: Annotated[Path, typer.Argument(help="CSV or Parquet")],
    one_image_per_patient: Annotated[bool, typer.Option(help="no patient_id column")] = False,
) -> None:
    """Find every fault of a manifest: columns, paths, ids, patients in two splits."""
    from medtl.cases.columns import Columns
    from medtl.cases.manifest import check_manifest

    columns = Columns(one_image_per_patient=one_image_per_patient)
    found = check_manifest(manifest, columns)
    print(f"{manifest.name}: {found.images} images of {found.patients} patients, no faults")
    for note in found.notes:
        print(note)


@manifest_app.command("relabel")
def manifest_relabel(
    manifest: Annotated[Path, typer.Argument(help="the manifest that was audited")],
    audit: Annotated[Path, typer.Argument(help="what the page of medtl audit exports")],
    out: Annotated[Path, typer.Option("--out", help="manifest to write; it must not exist yet")],
    unsure: Annotated[
        str | None, typer.Option(help="cell for labels you were unsure of; default: as they are")
    ] = None,
) -> None:
    """Write a manifest with the labels that an audit calls wrong; the old ones stay beside them."""
    from medtl.studies.learned.label_audit import relabel_manifest

    number = relabel_manifest(manifest, audit, out, unsure=unsure)
    print(f"{number} label{'s' if number != 1 else ''} changed: {out}")


@manifest_app.command("whois")
def manifest_whois(
    name: Annotated[str, typer.Argument(help="a pseudonym from a run folder")],
) -> None:
    """Say which id a pseudonym stands for; only on the machine that made it."""
    from medtl.cases.pseudonyms import whois

    original = whois(name)
    if original is None:
        raise MedtlError("this machine has not made that pseudonym", where=name)
    print(original)
