"""Shares of every kind of work, put together, are what one process makes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from launched import PLACES
from make_dicom import write
from tiny_study import RECIPE, write_tiny_study

from medtl.data import decoded
from medtl.errors import RunError
from medtl.run import predict as predicting
from medtl.run.chain import train_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.spread import feature_table
from medtl.run.spread.jobs import (
    DecodeJob,
    FeaturesJob,
    Job,
    PredictJob,
    ScanJob,
    _files_of,
    do_share,
    merge,
    read_job,
)
from medtl.storage.parts import WHOLE, Share
from medtl.types import Case, Manifest, silent

ORDER = (3, 1, 4, 2)


def in_shares(job: Job) -> None:
    for number in ORDER:
        assert do_share(job, Share(number, len(ORDER)), silent)
    merge(job.out)


def alone(job: Job) -> None:
    job.finish([job.do(WHOLE, silent)])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_tiny_study(tmp_path_factory.mktemp("study") / "data", patients=12, recipe=RECIPE)


@pytest.fixture(scope="module")
def study(recipe, tmp_path_factory):
    """(trained run, folder of new images of which one cannot be read)."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train_study(read_recipe(recipe, ["finetune.stages.1.epochs=1"]), run)
    images = shutil.copytree(recipe.parent / "images", run.parent / "images")
    (images / "005_broken.png").write_bytes(b"none")
    return run, images


@pytest.fixture
def small_batches(monkeypatch):
    """Several parts of 25 images."""
    monkeypatch.setattr(predicting, "PREDICT_BATCH", 4)
    monkeypatch.setattr(feature_table, "PREDICT_BATCH", 4)


@pytest.mark.usefixtures("small_batches")
def test_predictions_of_four_shares_are_those_of_one_process(study, tmp_path):
    run, images = study
    Run(run).predict(images, tmp_path / "whole.csv")
    in_shares(PredictJob(str(run), str(images), str(tmp_path / "shares.csv")))
    for name in ("csv", "quality.json"):
        whole, shares = (tmp_path / f"{which}.{name}" for which in ("whole", "shares"))
        assert shares.read_bytes() == whole.read_bytes()
    assert len(pd.read_csv(tmp_path / "shares.csv")) == 24


@pytest.mark.usefixtures("small_batches")
def test_a_share_that_is_there_is_not_done_again_and_another_model_is_another_work(
    study, tmp_path, monkeypatch
):
    run, images = study
    job = PredictJob(str(run), str(images), str(tmp_path / "shares.csv"))
    assert do_share(job, Share(1, 2), silent)
    assert not do_share(job, Share(1, 2), silent)
    monkeypatch.setattr("medtl.run.spread.jobs._of_run", lambda _run: ["another"])
    assert do_share(job, Share(2, 2), silent)
    with pytest.raises(RunError, match="not of one piece of work"):
        merge(job.out)


def test_a_changed_file_of_a_series_is_another_work(tmp_path):
    (tmp_path / "ct").mkdir()
    slice_ = tmp_path / "ct" / "1.dcm"
    manifest = Manifest((Case("a", "p", tmp_path / "ct"),), tmp_path, sha256="")
    facts = []
    for text in ("one", "other"):
        slice_.write_text(text)
        os.utime(tmp_path / "ct", (1, 1))  # the folder itself tells nothing
        facts.append(list(_files_of(manifest)))
    assert facts[0] != facts[1]
    copied = shutil.copy2(slice_, tmp_path / "copy.dcm")
    os.replace(copied, slice_)  # another inode: as another machine sees the same file
    assert list(_files_of(manifest)) == facts[1]


@pytest.mark.usefixtures("small_batches")
def test_features_of_four_shares_are_those_of_one_process(study, tmp_path):
    run, images = study
    jobs = [FeaturesJob(str(run), str(images), str(tmp_path / f"{n}.parquet")) for n in "ab"]
    alone(jobs[0])
    in_shares(jobs[1])
    whole, shares = (pd.read_parquet(job.out) for job in jobs)
    pd.testing.assert_frame_equal(whole, shares, check_exact=True)
    columns = [name for name in whole if name.startswith("feature_")]
    assert set(whole[columns].dtypes) == {np.dtype(np.float32)}
    trained = Run(run).trained
    assert trained.model.head.linear.in_features == len(columns)


def test_a_network_without_pooled_features_is_refused(study, tmp_path, monkeypatch):
    run, images = study
    monkeypatch.setattr(feature_table, "is_classifier", lambda _network: False)
    job = FeaturesJob(str(run), str(images), str(tmp_path / "features.csv"))
    with pytest.raises(RunError, match="has no pooled features"):
        alone(job)


def test_images_decoded_in_shares_are_not_decoded_again(recipe, tmp_path, monkeypatch):
    changes = ("image.size=40",)
    job = DecodeJob(str(recipe), str(tmp_path / "shares.csv"), changes)
    in_shares(job)
    monkeypatch.setattr(decoded, "decode_cases", None)  # decoding now fails
    again = DecodeJob(str(recipe), str(tmp_path / "whole.csv"), changes)
    alone(again)
    assert Path(job.out).read_bytes() == Path(again.out).read_bytes()
    manifest, reader, decode = again.study
    monkeypatch.undo()
    store, _ = decode(manifest.cases, reader)
    fresh, _ = decoded.decode_cases(manifest.cases, reader)
    assert all((store.units[row] == fresh.units[row]).all() for row in range(len(fresh.case_ids)))


def test_a_recipe_that_keeps_no_images_has_nothing_to_decode_before(recipe, tmp_path):
    job = DecodeJob(str(recipe), str(tmp_path / "a.csv"), ("run.cache_gb=0",))
    with pytest.raises(RunError, match=r"not kept between runs.*cache_gb"):
        alone(job)


@pytest.mark.parametrize("per", ["image", "series"])
def test_a_scan_in_shares_is_the_scan_and_its_parts_name_nobody(tmp_path, per):
    data = tmp_path / "data"
    for number in range(9):
        place = data / f"s{number % 3}" / f"{number}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        uid = {"SOPInstanceUID": "1.2.3", "SeriesInstanceUID": f"1.2.{number % 3}"}
        write(place, np.full((3, 4), number, np.uint16), PatientID=f"CANARY{number}", **uid)
    (data / "notes.txt").write_text("no image")
    jobs = [ScanJob(str(data), str(tmp_path / f"{n}.csv"), per) for n in "ab"]
    alone(jobs[0])
    in_shares(jobs[1])
    assert Path(jobs[0].out).read_bytes() == Path(jobs[1].out).read_bytes()
    parts = list((tmp_path / "b.csv.parts").iterdir())
    assert len(parts) == 8
    assert not any(b"CANARY" in path.read_bytes() for path in parts)


def test_parts_of_another_version_are_refused():
    with pytest.raises(RunError, match=r"the parts are of 'dream'.*predict"):
        read_job({"kind": "dream"})


KILLED = """
import os, signal, sys
from medtl.run import predict
from medtl.run.spread.jobs import PredictJob, do_share
from medtl.storage.parts import Share

predict.PREDICT_BATCH = 4

def killed(done, *_):
    if done == "Predicting":
        os.kill(os.getpid(), signal.SIGKILL)

do_share(PredictJob(*sys.argv[1:]), Share(2, 4), killed)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.usefixtures("small_batches")
def test_four_shares_of_which_one_was_killed_are_one_process(study, tmp_path):
    run, images = study
    Run(run).predict(images, tmp_path / "whole.csv")
    job = PredictJob(str(run), str(images), str(tmp_path / "shares.csv"))
    command = [sys.executable, "-c", KILLED, job.run, job.data, job.out]
    environment = {**os.environ, "PYTHONPATH": PLACES}
    done = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(RunError, match="there are no parts"):
        merge(job.out)
    in_shares(job)
    assert Path(job.out).read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_dask_worker_that_is_killed_loses_nothing(study, tmp_path):
    distributed = pytest.importorskip("distributed")
    from medtl.run.spread.cluster import on_cluster

    run, images = study
    Run(run).predict(images, tmp_path / "whole.csv")
    job = PredictJob(str(run), str(images), str(tmp_path / "shares.csv"))
    killed = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster) as client:
            workers = list(client.run(os.getpid).values())

        def kill_one(_what: str, done: int, _total: int) -> None:
            if not killed:
                killed.append(workers[0])
                os.kill(workers[0], signal.SIGKILL)

        on_cluster(job, cluster.scheduler_address, shares=6, progress=kill_one)
    assert killed
    assert Path(job.out).read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_said(tmp_path):
    pytest.importorskip("distributed")
    from medtl.run.spread.cluster import on_cluster

    with pytest.raises(RunError, match="the scheduler of the cluster is not reached"):
        on_cluster(ScanJob(str(tmp_path), str(tmp_path / "a.csv")), "tcp://127.0.0.1:1")


def test_a_share_that_kills_every_worker_is_said(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    from medtl.run.spread import cluster

    class Client:
        def nthreads(self) -> dict[str, int]:
            return {"one": 1}

        def submit(self, *_: object, **__: object) -> None:
            return None

    def killed(_futures: object) -> None:
        raise distributed.KilledWorker("share", None, 3)

    monkeypatch.setattr(cluster, "_client", lambda _address: nullcontext(Client()))
    monkeypatch.setattr(distributed, "as_completed", killed)
    with pytest.raises(RunError, match=r"killed one after the other.*more --shares"):
        cluster.on_cluster(ScanJob(str(tmp_path), str(tmp_path / "a.csv")), "any")
