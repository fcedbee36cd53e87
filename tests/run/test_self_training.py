"""`finetune.learn: {method: fixmatch}`, or pseudo_label: what is learned, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from resumed import stopped_and_resumed
from tiny_study import write_tiny_study
from torch.nn import functional

from medtl.data.batches import Batch
from medtl.errors import LeakError, RecipeError, RunError
from medtl.losses.mixmatch import MixMatch, sharpened, soft_loss, squared_error
from medtl.losses.self_training import SelfTraining, guessed_loss
from medtl.preprocess.augment import augmenter
from medtl.run.chain import build_training, run_study, train_study
from medtl.run.check import read_recipe
from medtl.run.learning.unlabelled import find_unlabelled, weak_and_strong
from medtl.run.plan import describe_plan
from medtl.run.prepare import read_study
from medtl.training.checkpoint import load_checkpoint
from medtl.training.objective import MixMatched, SelfTrained

SHORT = ["finetune.stages.1.epochs=1"]


def learning(table, method="fixmatch", **options):
    text = "".join(f", {k}: {v}" for k, v in options.items())
    return f"finetune.learn={{method: {method}, unlabelled: {table}{text}}}"


def write_unlabelled(folder, *, patients=12, first=100):
    """Images of further patients, as the study's own, without labels; return the table."""
    (folder / "more").mkdir(parents=True)
    lines = ["image,patient_id"]
    for patient in range(first, first + patients):
        rng = np.random.default_rng([patient, 7])
        pixels = rng.integers(0, 60, (40, 40))
        pixels[10:30, 10:30] += 90 if patient % 2 else 30
        name = f"more/{patient}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        lines.append(f"{name},Kim-{patient}")
    (folder / "unlabelled.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "unlabelled.csv"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A recipe, and a table of images without labels."""
    folder = tmp_path_factory.mktemp("study")
    path = write_tiny_study(folder / "data", patients=12)
    return path, write_unlabelled(folder / "unlabelled")


# ------------------------------------------------------------------ the loss, by hand


def test_the_loss_of_findings_is_that_of_the_paper():
    """Equation 4 of FixMatch with a sigmoid for each finding, by hand in numpy."""
    rng = np.random.default_rng(0)
    seen, outputs = rng.normal(0, 3, (2, 50, 3))
    p, q = 1 / (1 + np.exp(-seen)), 1 / (1 + np.exp(-outputs))
    sure = np.maximum(p, 1 - p) >= 0.9
    each = np.where(p > 0.5, -np.log(q), -np.log(1 - q))
    loss, share = guessed_loss(*map(torch.tensor, (outputs, seen)), 0.9, exclusive=False)
    assert float(loss) == pytest.approx((each * sure).sum() / sure.size, rel=1e-12)
    assert float(share) == pytest.approx(sure.mean())
    assert 0 < sure.mean() < 1


def test_no_gradient_goes_through_the_answers():
    seen, outputs = (torch.randn(8, 2, requires_grad=True) for _ in range(2))
    guessed_loss(outputs, 9 * seen, 0.6, exclusive=True)[0].backward()
    assert seen.grad is None
    assert outputs.grad.abs().sum() > 0


def test_a_batch_is_the_labelled_loss_and_that_of_the_strong_view():
    """The first view is answered, the last is learned: swapped, the loss is another."""
    torch.manual_seed(0)
    batch = Batch(
        torch.randn(3, 1, 4, 4), torch.zeros(3, 0), torch.tensor([[0.0], [1.0], [1.0]]),
        torch.arange(3), torch.randn(3, 2, 2, 1, 4, 4),
    )  # fmt: skip

    def network(images, inputs):
        assert inputs.shape == (3 + 3 * 2 * 2, 0)
        return 5 * images.sum((1, 2, 3))[:, None]

    loss = functional.binary_cross_entropy_with_logits
    method = SelfTraining("fixmatch", "u.csv", threshold=0.9, weight=0.5)
    found = SelfTrained(loss, method)(network, batch)
    weak, strong = (batch.unlabelled[:, :, view].flatten(0, 1) for view in (0, 1))
    nothing = torch.zeros(15, 0)
    answers, learned = (5 * part.sum((1, 2, 3))[:, None] for part in (weak, strong))
    own = loss(network(batch.images, nothing), batch.targets)
    guessed, sure = guessed_loss(learned, answers, 0.9, exclusive=False)
    assert float(found.loss) == pytest.approx(float(own + 0.5 * guessed), rel=1e-6)
    assert float(found.parts["sure_answers"]) == float(sure)
    swapped = batch._replace(unlabelled=batch.unlabelled.flip(2))
    assert float(SelfTrained(loss, method)(network, swapped).loss) != pytest.approx(
        float(found.loss)
    )


def test_mixmatch_sharpens_the_mean_answer():
    """Berthelot et al. 2019, equation 7, in numpy."""
    rng = np.random.default_rng(0)
    seen = rng.normal(0, 2, (2, 6, 3))
    p = np.exp(seen) / np.exp(seen).sum(-1, keepdims=True)
    power = p.mean(0) ** 2
    found = sharpened(torch.tensor(seen), 0.5, exclusive=True)
    np.testing.assert_allclose(found, power / power.sum(-1, keepdims=True), rtol=1e-12)
    q = (1 / (1 + np.exp(-seen))).mean(0)
    found = sharpened(torch.tensor(seen), 0.5, exclusive=False)
    np.testing.assert_allclose(found, q**2 / (q**2 + (1 - q) ** 2), rtol=1e-12)
    np.testing.assert_allclose(sharpened(torch.tensor(seen), 1, exclusive=False), q, rtol=1e-12)


@pytest.mark.parametrize("exclusive", [True, False])
def test_losses_against_probabilities_leave_out_what_is_not_known(exclusive):
    outputs = torch.tensor([[2.0, -1.0], [0.5, 0.0]])
    targets = torch.tensor([[0.7, 0.3], [torch.nan, torch.nan]])
    p = (outputs.softmax(-1) if exclusive else outputs.sigmoid()).numpy()[0]
    t = targets.numpy()[0]
    each = -(t * np.log(p)).sum() if exclusive else np.mean(-t * np.log(p) - (1 - t) * np.log1p(-p))
    assert float(soft_loss(outputs, targets, exclusive=exclusive)) == pytest.approx(each, rel=1e-6)
    error = squared_error(outputs, targets, exclusive=exclusive)
    assert float(error) == pytest.approx(((p - t) ** 2).mean(), rel=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_mixed_batch_by_hand(exclusive):
    """The same draws in numpy: answers of two views, pairs, both losses; unknown labels too."""
    rng = np.random.default_rng(1)
    cases, ratio, size = 4, 2, 2
    images = torch.tensor(rng.normal(size=(cases, 1, size, size)))
    views = torch.tensor(rng.normal(size=(cases, ratio, 2, 1, size, size)))
    weight = torch.tensor(rng.normal(size=(size * size, 3)))
    if exclusive:
        targets = torch.tensor([0.0, 2.0, 1.0, torch.nan])
        shares = np.eye(3)[[0, 2, 1, 0]]
        shares[3] = np.nan
    else:
        targets = torch.tensor([[0.0, 1, 1], [1, 0, torch.nan], [0, 0, 1], [1, 1, 0]]).double()
        shares = targets.numpy()
    batch = Batch(images, torch.zeros(cases, 0), targets, torch.arange(cases), views)

    def network(given, _inputs):
        return given.flatten(1) @ weight

    def task_loss(outputs, truth):
        if truth.ndim == 1:
            known = ~truth.isnan()
            return functional.cross_entropy(outputs[known], truth[known].long())
        return soft_loss(outputs, truth, exclusive=False)

    torch.manual_seed(3)
    found = MixMatched(task_loss, MixMatch("u.csv", ratio=ratio, weight=2.0))(network, batch)
    torch.manual_seed(3)
    drawn = float(torch.distributions.Beta(0.75, 0.75).sample())
    share, order = max(drawn, 1 - drawn), torch.randperm(cases * (1 + 2 * ratio)).numpy()
    first, second = (views[:, :, v].flatten(0, 1) for v in (0, 1))
    seen = torch.stack([network(first, None), network(second, None)])
    answers = sharpened(seen, 0.5, exclusive=exclusive).numpy()
    everything = torch.cat([images, first, second]).numpy()
    all_targets = np.concatenate([shares, answers, answers])
    mixed = share * everything + (1 - share) * everything[order]
    outputs = network(torch.tensor(mixed), None)
    partner = torch.tensor(all_targets[order][:cases])
    labelled = share * task_loss(outputs[:cases], targets) + (1 - share) * soft_loss(
        outputs[:cases], partner, exclusive=exclusive
    )
    said = (outputs.softmax(-1) if exclusive else outputs.sigmoid()).numpy()[cases:]
    error = np.nanmean(
        (said - (share * all_targets + (1 - share) * all_targets[order])[cases:]) ** 2
    )
    assert float(found.parts["label_loss"]) == pytest.approx(float(labelled), rel=1e-6)
    assert float(found.parts["unlabelled_loss"]) == pytest.approx(error, rel=1e-6)
    assert float(found.loss) == pytest.approx(float(labelled) + 2 * error, rel=1e-6)


# ------------------------------------------------------------------ the views


def test_a_weak_view_keeps_its_tones_and_a_strong_one_is_always_changed():
    policy = augmenter("cxr")
    rng = np.random.default_rng(0)
    weak, strong = policy.weak(), policy.strong()
    assert not weak.listed("photometric")
    assert weak.listed("geometric") == policy.listed("geometric")
    drawn = [strong.draw(rng, (32, 32)) for _ in range(50)]
    photometric = set(policy.listed("photometric"))
    assert all(photometric & {step.name for step in steps} for steps in drawn)
    plain = [policy.draw(rng, (32, 32)) for _ in range(50)]
    assert not all(photometric & {step.name for step in steps} for steps in plain)


def test_what_an_epoch_draws_depends_on_its_place_alone(study):
    path, table = study
    recipe = read_recipe(path, [learning(table, ratio=3)])
    prepared = read_study(recipe)
    training, _ = build_training(prepared, path.parent)
    one, again, other = (training.train[place].unlabelled for place in ((4, 2), (4, 2), (5, 2)))
    assert one.shape == (3, 2, 3, 32, 32)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[:, 0], one[:, 1])
    labelled = prepared.samples(prepared.split("train"), seed=recipe.seed_of("augment"))
    assert torch.equal(training.train[4, 2].images, labelled[4, 2].images)
    alone = weak_and_strong(recipe, SelfTraining("pseudo_label", "u.csv"))
    assert len(alone) == 1
    weak = weak_and_strong(recipe, MixMatch("u.csv"))
    assert weak[0] == weak[1]
    assert not weak[1].policy.listed("photometric")


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["augment.policy=none"], "learns views of pictures, and the recipe has images that are"),
        (["finetune.mix={mixup: 0.2}"], "and finetune.learn fixmatch both change the images"),
        ([learning("nowhere.csv")], r"no file 'nowhere.csv'"),
        ([learning("u.csv", "fixmach")], "Did you mean 'fixmatch'"),
        (["finetune.learn={unlabelled: u.csv}"], r"learn.method: this key is missing"),
        ([learning("u.csv", temperature=2)], "unknown option of fixmatch"),
        ([learning("u.csv", threshold=1.2)], "threshold"),
        ([learning("u.csv", "mixmatch", threshold=0.9)], "unknown option of mixmatch"),
        ([learning("u.csv", "mixmatch"), "image.modality=mr"], "mixup on mr: overlaid anatomy"),
    ],
)
def test_what_has_no_meaning_is_refused(study, changes, reason):
    path, table = study
    with pytest.raises(RecipeError, match=reason):
        read_recipe(path, [learning(table), *changes])


def test_volumes_have_no_such_views(study):
    path, table = study
    recipe = read_recipe(path, [learning(table)])
    volumes = recipe.model_copy(
        update={"image": recipe.image.model_copy(update={"spacing": (1.0, 1.0, 1.0)})}
    )
    from medtl.run.check import _learning_faults

    assert "and the recipe has volumes" in str(_learning_faults(volumes)[0])


def test_a_test_patient_without_a_label_is_a_leak(study, tmp_path):
    path, _ = study
    prepared = read_study(read_recipe(path))
    rows = {case.row for case in prepared.split("test")}
    tested = {case.patient_id for case in prepared.split("test")}
    manifest = (path.parent / "manifest.csv").read_text().splitlines()
    lines = [line.split(",")[:2] for number, line in enumerate(manifest, 1) if number in rows]
    (path.parent / "leaky.csv").write_text(
        "\n".join(["image,patient_id", *(",".join(line) for line in lines)]) + "\n"
    )
    recipe = read_recipe(path, [learning(path.parent / "leaky.csv")])
    said = f"leaky.csv holds images of {len(tested)} of {len(tested)} test patients"
    with pytest.raises(LeakError, match=said):
        find_unlabelled(recipe, prepared)
    with pytest.raises(LeakError, match=said):
        list(describe_plan(recipe))
    # Under other ids the pixels tell.
    strange = [f"{line[0]},x{number}" for number, line in enumerate(lines)]
    (path.parent / "leaky.csv").write_text("\n".join(["image,patient_id", *strange]) + "\n")
    with pytest.raises(LeakError, match=said):
        find_unlabelled(recipe, prepared)


def test_the_rule_of_rows_chooses_among_images_without_labels_too(tmp_path):
    path = write_tiny_study(tmp_path / "data", patients=12)
    manifest = path.parent / "manifest.csv"
    head, *rows = manifest.read_text(encoding="utf-8").splitlines()
    lines = [f"{head},view", *(f"{row},PA" for row in rows)]
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = write_unlabelled(tmp_path / "unlabelled")
    recipe = read_recipe(path, [learning(table), "data.where=view in [PA]"])
    prepared = read_study(recipe)
    with pytest.raises(RunError, match=r"has no column 'view', by which data\.where chooses"):
        find_unlabelled(recipe, prepared)
    head, *rows = table.read_text(encoding="utf-8").splitlines()
    views = [f"{row},{'PA' if number < 5 else 'AP'}" for number, row in enumerate(rows)]
    table.write_text("\n".join([f"{head},view", *views]) + "\n", encoding="utf-8")
    found = find_unlabelled(recipe, prepared)
    assert (len(found.images.case_ids), found.facts["images"]) == (5, 5)


def test_a_table_without_a_readable_image_is_refused(study, tmp_path):
    path, _ = study
    (tmp_path / "broken.png").write_bytes(b"none")
    table = tmp_path / "u.csv"
    table.write_text("image,patient_id\nbroken.png,p\n")
    recipe = read_recipe(path, [learning(table), "data.max_unreadable=1.0"])
    with pytest.raises(RunError, match=r"u\.csv holds no image"):
        find_unlabelled(recipe, read_study(recipe))


# ------------------------------------------------------------------ whole runs


def test_a_run_says_from_what_it_learned_and_goes_on_to_the_same_bits(study, tmp_path):
    path, table = study
    asked = [*SHORT, learning(table, threshold=0.5, weight=0.5)]
    recipe = read_recipe(path, asked)
    whole = run_study(recipe, tmp_path / "whole")
    again = stopped_and_resumed(recipe, tmp_path / "again", after=1)
    assert again.files.predictions.read_bytes() == whole.files.predictions.read_bytes()
    rows = whole.history
    mixed = rows["label_loss"] + 0.5 * rows["unlabelled_loss"]
    np.testing.assert_allclose(rows["train_loss"], mixed, rtol=1e-5)
    assert (rows["sure_answers"] == 1).all()  # of two answers one has a half
    page = whole.files.report.read_text("utf-8")
    assert "from 12 images of 12 patients without labels (unlabelled.csv)" in page
    assert "100% of its answers" in page
    korean = whole.report(tmp_path / "ko.html", language="ko").read_text("utf-8")
    assert "레이블이 없는 환자 12명의 영상 12장" in korean
    assert str(table.parent) not in whole.files.recipe.read_text()
    facts = json.loads(again.files.learning.read_text())
    again.files.learning.write_text(json.dumps({**facts, "unlabelled_sha256": "0"}))
    again.files.checksums.unlink()
    with pytest.raises(RunError, match=r"has changed since it was started \(unlabelled_sha256\)"):
        run_study(recipe, tmp_path / "again", resume=True)


def test_a_run_of_mixmatch_says_so_and_goes_on_to_the_same_bits(study, tmp_path):
    path, table = study
    recipe = read_recipe(path, [*SHORT, learning(table, "mixmatch", weight=2)])
    whole = run_study(recipe, tmp_path / "whole")
    again = stopped_and_resumed(recipe, tmp_path / "again", after=1)
    assert again.files.predictions.read_bytes() == whole.files.predictions.read_bytes()
    rows = whole.history
    mixed = rows["label_loss"] + 2 * rows["unlabelled_loss"]
    np.testing.assert_allclose(rows["train_loss"], mixed, rtol=1e-5)
    page = whole.files.report.read_text("utf-8")
    assert "sharpened at temperature 0.5" in page
    assert "Beta(0.75, 0.75), weight 2" in page
    korean = whole.report(tmp_path / "ko.html", language="ko").read_text("utf-8")
    assert "모든 영상을 둘씩 섞습니다" in korean


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pseudo_label", "mixmatch"])
def test_loader_processes_change_no_bit(study, tmp_path, method):
    path, table = study
    asked = [*SHORT, learning(table, method)]
    runs = [
        train_study(read_recipe(path, [*asked, f"run.workers={workers}"]), tmp_path / str(workers))
        for workers in (0, 2)
    ]
    tensors = [load_checkpoint(run.files.best)[0] for run in runs]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_stored_activations_do_not_serve(study):
    path, table = study
    asked = [learning(table), "finetune.cached_views=1", "finetune.stages.0.epochs=3"]
    lines = "\n".join(describe_plan(read_recipe(path, asked)))
    assert "what is learned changes the images themselves" in lines
    assert "2 for each labelled one" in lines
