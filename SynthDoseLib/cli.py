"""The command ``synthdose``: one verb per station of the way from images to doses."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__
from .cli_people import PEOPLE_VERB, add_people, run_people
from .cli_phantom import PHANTOM_VERB, add_phantom
from .cli_training import add_train_segmentation
from .core import Cancelled, MissingPackageError, Progress, SynthDoseError, resource_path

BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130

Verb = Callable[[argparse.Namespace, Progress], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process if not given.

    Returns
    -------
    int
        0 only on success, 2 for bad input, 1 for any other failure, 130 after Ctrl-C.
    """
    parsed = build_parser().parse_args(arguments)
    try:
        from .pipeline.console import open_console

        verb: Verb = parsed.verb
        return verb(parsed, open_console(getattr(parsed, "progress", "text")))
    except (KeyboardInterrupt, Cancelled):
        text = "Stopped. What is finished is kept; the same command with --resume goes on from there."
        return _stop(text if hasattr(parsed, "resume") else "Stopped.", INTERRUPTED)
    except MissingPackageError as error:
        return _stop(str(error), FAILURE)
    except SynthDoseError as error:
        return _stop(str(error), BAD_INPUT)
    except MemoryError:
        return _stop("Not enough memory. Use larger voxels ([dose] voxel_mm), fewer threads, or a larger computer.", FAILURE)
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        return _stop(f"The system refused: {reason}{where}.", FAILURE)
    except Exception:
        traceback.print_exc()
        return _stop("This is a fault of SynthDose. Please report it with the lines above.", FAILURE)


def program() -> int:
    """`main` as a process of its own: after Ctrl-C it ends at once, and does not wait for a kernel that is being compiled."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a cluster's time limit: what is finished is kept as well
    status = main()
    gc.freeze()  # all of it goes with the process: to search it for cycles at the end takes half a second
    if status == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _stop(message: str, status: int) -> int:
    sys.stderr.write(f"\nsynthdose: {message}\n")
    return status


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, example: str, function: Verb
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name, help=text, description=text, epilog=f"Example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--progress", choices=("text", "json", "slicer"), default="text", help="for people, JSON lines, or as Slicer reads it"
    )
    parser.set_defaults(verb=function)
    return parser


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="synthdose",
        description="From patient images to organ doses. Research software, not for clinical use.",
        epilog="'synthdose VERB --help' shows the options of a verb with an example.",
    )
    parser.add_argument("--version", action="version", version=f"SynthDose {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    demo = _verb(
        verbs, "demo", "A synthetic patient through the whole chain, to a report.", "synthdose demo --out runs/demo", _demo
    )
    demo.add_argument("--out", type=Path, required=True, help="folder to write")
    demo.add_argument("--seed", type=int, default=1, help="which patient (default 1)")
    demo.add_argument("--sex", choices=("male", "female"), help="drawn from the seed if not given")
    demo.add_argument("--threads", type=int, default=0, help="0 (default): all")
    demo.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run in this folder")

    run = _verb(verbs, "run", "One patient, start to report.", "synthdose run plan.toml --out runs/patient-017", _run)
    run.add_argument("plan", type=Path, nargs="?", help="TOML file; --template prints one")
    run.add_argument("--out", type=Path, help="folder to write")
    run.add_argument("--data", type=Path, help="folder that relative paths of the plan refer to (default: the plan's own)")
    run.add_argument("--resume", action="store_true", help="keep what an interrupted run of the same plan has finished")
    run.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run in this folder")
    run.add_argument("--reuse", type=Path, metavar="DIR", help="take over unchanged stages from here, and keep new ones here")
    run.add_argument("--from", dest="begin", default="", metavar="STAGE", help="with --reuse: this stage and all after it anew")
    run.add_argument("--template", action="store_true", help="print a commented plan and stop")

    export = _verb(
        verbs,
        "export",
        "RTDOSE, RTSTRUCT and SEG of a finished run.",
        "synthdose export runs/patient-017 --out dicom/",
        _export,
    )
    export.add_argument("run", type=Path, help="run folder")
    export.add_argument("--out", type=Path, required=True, help="new or empty folder")
    export.add_argument("--ct", type=Path, help="DICOM of the CT to refer to; without it the run's CT is written as well")
    export.add_argument("--series", default="", help="Series Instance UID, if that folder holds several")
    export.add_argument("--with-identity", action="store_true", help="name the patient as the CT does; otherwise de-identified")

    batch = _verb(
        verbs,
        "batch",
        "Many patients with one plan; a failed one does not stop the others.",
        "synthdose batch patients/ --plan plan.toml --out runs/cohort",
        _batch,
    )
    batch.add_argument("folder", type=Path, help="one folder per patient; the plan's relative paths refer to each of them")
    batch.add_argument("--plan", type=Path, required=True, help="TOML file")
    batch.add_argument("--out", type=Path, required=True, help="folder to write: one run folder per patient, and batch.csv")

    segment = _verb(
        verbs,
        "segment",
        "Organs of one image.",
        "synthdose segment ct/ --bundle synthetic_torso_ct --out labels.seg.nrrd",
        _segment,
    )
    segment.add_argument("image", type=Path, help="DICOM folder, NRRD, NIfTI")
    segment.add_argument(
        "--bundle", help="MONAI bundle: a folder, an archive, a name shipped, or a Model Zoo name; without it: tissues by HU"
    )
    segment.add_argument("--ensemble", nargs="+", default=(), metavar="BUNDLE", help="more bundles of these organs, averaged")
    segment.add_argument("--modality", default="", help="CT or MR, for formats that do not say")
    segment.add_argument("--hu-offset", type=float, default=0.0, help="added to every value, e.g. -1000 for maps of HU + 1000")
    segment.add_argument("--download", action="store_true", help="fetch the bundle from the Model Zoo if it is not here")
    segment.add_argument("--organs", nargs="*", default=(), help="keep only these")
    segment.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    segment.add_argument(
        "--uncertainty", type=int, default=0, metavar="N", help="N inferences of a changed image: volume intervals, entropy map"
    )
    segment.add_argument("--raw", action="store_true", help="leave islands, holes and parts on the wrong side as they are")
    segment.add_argument("--memory", type=float, metavar="GB", help="for the inference; the rest goes to temporary files")
    segment.add_argument(
        "--set",
        nargs="*",
        default=(),
        metavar="KEY=VALUE",
        help="in place of the bundle's, e.g. displayable_configs#highres=false",
    )
    segment.add_argument(
        "--trust-bundle", action="store_true", help="load pickled checkpoints and TorchScript, which can run code"
    )
    segment.add_argument("--out", type=Path, required=True, help="labels.seg.nrrd to write")

    bundle = _verb(
        verbs,
        "bundle",
        "What MONAI bundles are: licence, size, checksum, organs; without a name: those at hand.",
        "synthdose bundle wholeBody_ct_segmentation --download",
        _bundle,
    )
    bundle.add_argument("names", nargs="*", metavar="name", help="folder, archive, name shipped, or Model Zoo name")
    bundle.add_argument("--download", action="store_true", help="fetch a Model Zoo bundle; else it is only described")

    compare = _verb(
        verbs,
        "compare",
        "Two segmentations or phantoms: overlap, surfaces, volumes, and the dose that the difference makes.",
        "synthdose compare truth.nii.gz network.seg.nrrd --image ct/ --nuclide Lu-177 --source kidneys --out agreement.csv",
        _compare,
    )
    compare.add_argument("a", type=Path, help="label map, segmentation, SEG, RTSTRUCT, or a folder of 'synthdose phantom'")
    compare.add_argument("b", type=Path, help="the same; percentages refer to A")
    compare.add_argument(
        "--labels", nargs="+", default=(), metavar="TABLE", help="label table of label maps without names: one, or of A and B"
    )
    compare.add_argument("--image", type=Path, help="CT of both, for densities; needed for contours")
    compare.add_argument("--organs", nargs="*", default=(), help="only these organs or groups")
    compare.add_argument("--tolerance", type=float, default=2.0, metavar="MM", help="of the surface Dice (default 2)")
    compare.add_argument("--nuclide", default="", help="for the dose consequence")
    compare.add_argument("--progeny", choices=("none", "all"), help="required when the daughter is radioactive")
    compare.add_argument(
        "--source", nargs="*", default=(), metavar="ORGAN[=DECAYS]", help="where it decays; all organs by volume if not given"
    )
    compare.add_argument("--voxel", type=float, metavar="MM", help="voxels of the dose (with --image)")
    compare.add_argument("--relative-sigma", type=float, default=0.005, help="of the source organs' dose (default 0.005)")
    compare.add_argument("--seed", type=int, default=1)
    compare.add_argument("--threads", type=int, default=0, help="0 (default): all")
    compare.add_argument("--out", type=Path, required=True, help="table to write, .csv; .json beside it")

    add_train_segmentation(_verb, verbs)
    add_phantom(_verb(verbs, *PHANTOM_VERB, _phantom))

    simulate = _verb(
        verbs,
        "simulate",
        "The dose engine alone: any voxel phantom and any source.",
        "synthdose simulate CASE.toml --out results/",
        _simulate,
    )
    simulate.add_argument("case", type=Path, nargs="?", help="TOML file; --template prints one")
    simulate.add_argument("--out", type=Path, help="folder to write")
    simulate.add_argument("--template", action="store_true", help="print a commented case and stop")
    simulate.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same case")
    simulate.add_argument("--preview", type=float, metavar="SECONDS", help="write the dose so far to DIR about so often")

    radiomics = _verb(
        verbs,
        "radiomics",
        "Image features per organ, by pyradiomics.",
        "synthdose radiomics ct/ labels.seg.nrrd --log-sigma 2 4 --out features.csv",
        _radiomics,
    )
    radiomics.add_argument("image", type=Path, nargs="?", help="CT, MR, PET or dose: DICOM folder, NRRD, NIfTI")
    radiomics.add_argument("segmentation", type=Path, nargs="?", help="label map, SEG, RTSTRUCT or Slicer segmentation")
    radiomics.add_argument("--labels", default="", help="label table: totalsegmentator, monai-wholebody, or a CSV file")
    radiomics.add_argument("--modality", default="", help="CT, MR, PT ..., for formats that do not say")
    radiomics.add_argument("--organs", nargs="*", default=(), help="only these")
    radiomics.add_argument("--further", nargs=2, action="append", default=[], metavar=("IMAGE", "MODALITY"), help="another "
                           "image of the same organs, e.g. --further dose_Gy.nrrd dose; may be repeated")  # fmt: skip
    radiomics.add_argument("--parameters", type=Path, help="parameter file of pyradiomics, in place of the options below")
    radiomics.add_argument("--bin-width", type=float, help="of grey levels (default: 25 HU for a CT, else 32 levels)")
    radiomics.add_argument("--bin-count", type=int, help="number of grey levels, if no width is given")
    radiomics.add_argument(
        "--voxel", type=float, nargs="+", default=(3.0,), metavar="MM", help="one edge, or i j k; 0: the image's (default 3)"
    )
    radiomics.add_argument("--ibsi-interpolation", action="store_true", help="linear, as IBSI asks, in place of averaging")
    radiomics.add_argument("--resegment", type=float, nargs=2, metavar=("LOW", "HIGH"), help="leave out voxels outside these")
    radiomics.add_argument("--in-slices", action="store_true", help="texture along the slices only (IBSI's 2.5D)")
    radiomics.add_argument("--log-sigma", type=float, nargs="*", default=(), metavar="MM", help="Laplacian of Gaussian filters")
    radiomics.add_argument("--wavelet", action="store_true", help="wavelet decompositions as well")
    radiomics.add_argument("--ibsi", action="store_true", help="only check the installed pyradiomics against IBSI's phantom")
    radiomics.add_argument("--out", type=Path, help=".csv to write; how it was made goes into a .json beside it")

    kernel = _verb(
        verbs,
        "kernel",
        "Voxel S-values of a nuclide, from the Monte Carlo (kept in the user's cache).",
        "synthdose kernel Y-90 --voxel 3 --material bone --out y90_bone.csv",
        _kernel,
    )
    kernel.add_argument("nuclide", help="for example Lu-177")
    kernel.add_argument("--voxel", type=float, nargs="+", required=True, metavar="MM", help="voxel size: one number, or i j k")
    kernel.add_argument("--material", default="soft_tissue", help="named tissue (default soft_tissue)")
    kernel.add_argument("--density", type=float, metavar="G_CM3", help="that of the material if not given")
    kernel.add_argument("--radius", type=float, metavar="MM", help="how far; as far as the radiation counts if not given")
    kernel.add_argument("--progeny", choices=("none", "all"), help="required when the daughter is radioactive")
    kernel.add_argument("--relative-sigma", type=float, default=0.005, help="of source voxel and neighbours (default 0.005)")
    kernel.add_argument("--seed", type=int, default=1)
    kernel.add_argument("--threads", type=int, default=0, help="0 (default): all")
    kernel.add_argument("--out", type=Path, required=True, help=".csv, or .npz with provenance")

    add_people(_verb(verbs, *PEOPLE_VERB, _people))
    _verb(verbs, "check", "What works on this computer, and what to do about the rest.", "synthdose check", _check)
    return parser


def _demo(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.demo import run_demo

    summary = run_demo(
        arguments.out,
        seed=arguments.seed,
        sex=arguments.sex,
        threads=arguments.threads,
        overwrite=arguments.overwrite,
        progress=progress,
    )
    _say(summary)
    return 0


def _run(arguments: argparse.Namespace, progress: Progress) -> int:
    if arguments.template:
        _say(resource_path("plan_template.toml").read_text(encoding="utf-8").rstrip())
        return 0
    if arguments.plan is None or arguments.out is None:
        raise SynthDoseError(
            "'synthdose run' needs a plan and --out DIR. 'synthdose run --template' prints a plan to start from."
        )
    from .pipeline.plan import read_plan
    from .pipeline.run import run_patient

    plan = read_plan(arguments.plan, arguments.data)
    result = run_patient(
        plan,
        arguments.out,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        reuse=arguments.reuse,
        begin=arguments.begin,
        progress=progress,
    )
    _say(result.summary())
    return 0


def _export(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.dicom_export import export_run

    folder = export_run(
        arguments.run,
        arguments.out,
        ct=arguments.ct,
        series=arguments.series,
        deidentify=not arguments.with_identity,
        progress=progress,
    )
    _say(f"Wrote {folder}.")
    return 0


def _batch(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.batch import run_batch

    failed = run_batch(arguments.folder, arguments.plan, arguments.out, progress=progress)
    _say(f"{arguments.out / 'batch.csv'} lists the patients; {failed} failed.")
    return FAILURE if failed else 0


def _segment(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.plan import ImagePlan, SegmentationPlan
    from .pipeline.segmenting import segment_file, settings_of

    plan = SegmentationPlan(
        bundle=arguments.bundle or "",
        ensemble=tuple(arguments.ensemble),
        download=arguments.download,
        trusted=arguments.trust_bundle,
        overrides=settings_of(arguments.set),
        uncertainty=arguments.uncertainty,
        clean=not arguments.raw,
        memory_GB=arguments.memory,
        method="" if arguments.bundle else "tissue",
        organs=tuple(arguments.organs),
    )
    image = ImagePlan(arguments.image, modality=arguments.modality, hu_offset=arguments.hu_offset)
    _say(segment_file(image, arguments.out, plan, device=arguments.device, progress=progress))
    return 0


def _bundle(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.segmenting import describe_bundle

    for name in arguments.names or [""]:
        _say(describe_bundle(name, download=arguments.download, progress=progress))
    return 0


def _compare(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.compare import Side, compare_files, sources_of
    from .pipeline.plan import ImagePlan

    tables = [*arguments.labels, "", ""] if len(arguments.labels) != 1 else arguments.labels * 2
    _say(
        compare_files(
            Side(arguments.a, tables[0]),
            Side(arguments.b, tables[1]),
            arguments.out,
            image=ImagePlan(arguments.image) if arguments.image else None,
            organs=arguments.organs,
            tolerance_mm=arguments.tolerance,
            nuclide=arguments.nuclide,
            progeny=arguments.progeny,
            sources=sources_of(arguments.source),
            voxel_mm=arguments.voxel,
            relative_sigma=arguments.relative_sigma,
            seed=arguments.seed,
            threads=arguments.threads,
            progress=progress,
        )
    )
    return 0


def _people(arguments: argparse.Namespace, progress: Progress) -> int:
    text, failed = run_people(arguments, progress)
    _say(text)
    return FAILURE if failed else 0


def _phantom(arguments: argparse.Namespace, progress: Progress) -> int:
    from .cli_phantom import run_phantom

    return run_phantom(arguments, progress, _say)


def _simulate(arguments: argparse.Namespace, progress: Progress) -> int:
    if arguments.template:
        _say(resource_path("case_template.toml").read_text(encoding="utf-8").rstrip())
        return 0
    if arguments.case is None or arguments.out is None:
        raise SynthDoseError(
            "'synthdose simulate' needs a case and --out DIR. 'synthdose simulate --template' prints a case to start from."
        )
    from .pipeline.case import run_case

    result = run_case(arguments.case, arguments.out, progress, resume=arguments.resume, preview_seconds=arguments.preview)
    _say("\n".join([(arguments.out / "organs.csv").read_text(encoding="utf-8").rstrip(), *result.notes]))
    return 0


def _radiomics(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.radiomics_file import RadiomicsSettings, ibsi_report, radiomics_file

    if arguments.ibsi:
        text, agrees = ibsi_report(arguments.out)
        _say(text)
        return 0 if agrees else FAILURE
    if arguments.image is None or arguments.segmentation is None or arguments.out is None:
        raise SynthDoseError("'synthdose radiomics' needs an image, its segmentation, and --out FILE.csv (or --ibsi alone).")
    from .pipeline.plan import ImagePlan

    settings = RadiomicsSettings(
        bin_width=arguments.bin_width,
        bin_count=arguments.bin_count,
        spacing_mm=_voxel_edges(arguments.voxel),
        interpolation="linear" if arguments.ibsi_interpolation else "mean",
        resegment=tuple(arguments.resegment) if arguments.resegment else None,
        in_slices=arguments.in_slices,
        log_sigma_mm=tuple(arguments.log_sigma),
        wavelet=arguments.wavelet,
    )
    _say(
        radiomics_file(
            ImagePlan(arguments.image, modality=arguments.modality),
            arguments.segmentation,
            arguments.out,
            settings=settings,
            parameters=arguments.parameters,
            table=arguments.labels,
            organs=tuple(arguments.organs),
            further=[ImagePlan(Path(path), modality=modality) for path, modality in arguments.further],
            progress=progress,
        )
    )
    return 0


def _voxel_edges(edges: Sequence[float]) -> tuple[float, float, float]:
    sizes = tuple(edges) * 3 if len(edges) == 1 else tuple(edges)
    if len(sizes) != 3:
        raise SynthDoseError(f"--voxel takes one number or three; found {len(sizes)}.")
    return sizes[0], sizes[1], sizes[2]


def _kernel(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.kernel_file import describe_kernel, nuclide_kernel, write_kernel_file

    kernel, notes = nuclide_kernel(
        arguments.nuclide,
        _voxel_edges(arguments.voxel),
        arguments.material,
        density_g_cm3=arguments.density,
        progeny=arguments.progeny,
        radius_mm=arguments.radius,
        relative_sigma=arguments.relative_sigma,
        seed=arguments.seed,
        threads=arguments.threads,
        progress=progress,
    )
    write_kernel_file(kernel, arguments.out)
    _say(describe_kernel(kernel, notes))
    return 0


def _check(arguments: argparse.Namespace, progress: Progress) -> int:
    from .pipeline.check import check_setup, describe

    findings = check_setup()
    _say(describe(findings))
    return FAILURE if any(finding.state == "missing" and finding.required for finding in findings) else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
