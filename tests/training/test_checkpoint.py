import os

import pytest
import torch

from medtl.errors import WeightsError
from medtl.training.checkpoint import (
    load_checkpoint,
    load_latest,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    with_prefix,
    without_prefix,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "c.safetensors", with_prefix("m", TENSORS), {"labels": ["x"]})
    tensors, meta = load_checkpoint(tmp_path / "c.safetensors")
    assert meta == {"labels": ["x"]}
    own = without_prefix("m", tensors)
    assert all(torch.equal(own[name], TENSORS[name]) for name in TENSORS)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="do not match their hash"):
        load_checkpoint(path)


def test_a_flipped_bit_of_the_meta_data_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, {"position": {"epoch": 3}})
    data = path.read_bytes()
    assert data.count(b"epoch") == 1
    path.write_bytes(data.replace(b"epoch", b"epach"))
    with pytest.raises(WeightsError, match="meta data do not match their hash"):
        load_checkpoint(path)


def test_the_file_before_stays_under_a_second_name(tmp_path):
    path, previous = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    for number in range(3):
        save_checkpoint(path, TENSORS, {"number": number}, previous=previous)
    assert load_checkpoint(path)[1] == {"number": 2}
    assert load_checkpoint(previous)[1] == {"number": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, previous.name]


def test_a_kill_between_the_second_name_and_the_new_file_leaves_no_trace(tmp_path):
    """Then both names are the same file, which a rename leaves alone."""
    path, previous = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    save_checkpoint(path, TENSORS, {"number": 0})
    os.link(path, previous)
    save_checkpoint(path, TENSORS, {"number": 1}, previous=previous)
    assert load_checkpoint(previous)[1] == {"number": 0}
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, previous.name]


def test_without_links_it_is_copied(tmp_path, monkeypatch):
    def refuse(*_names):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    test_the_file_before_stays_under_a_second_name(tmp_path)


def test_the_latest_whole_checkpoint_is_found(tmp_path):
    paths = [tmp_path / "last.safetensors", tmp_path / "previous.safetensors"]
    assert load_latest(paths) is None
    for number in range(2):
        save_checkpoint(paths[0], TENSORS, {"number": number}, previous=paths[1])
    assert load_latest(paths)[1] == {"number": 1}
    paths[0].write_bytes(b"")
    assert load_latest(paths)[1] == {"number": 0}
    paths[1].write_bytes(b"")
    with pytest.raises(WeightsError, match=r"last\.safetensors"):
        load_latest(paths)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda written: written[:-1], "not a readable"),
        (lambda written: written[:-1] + bytes([written[-1] ^ 1]), "other bytes"),
    ],
)
def test_a_disk_that_gives_other_bytes_back_keeps_the_old_file(tmp_path, monkeypatch, damage, said):
    from safetensors import torch as library

    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, {"number": 1})
    write = library.save_file

    def lossy(tensors, name, metadata):
        write(tensors, name, metadata)
        name.write_bytes(damage(name.read_bytes()))

    monkeypatch.setattr(library, "save_file", lossy)
    with pytest.raises(WeightsError, match=said):
        save_checkpoint(path, TENSORS, {"number": 2})
    assert load_checkpoint(path)[1] == {"number": 1}


def test_a_cut_file_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_checkpoint(path)


def test_foreign_and_missing_files(tmp_path):
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_a_pickle_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "p.safetensors")
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        load_checkpoint(tmp_path / "p.safetensors")


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_restored_optimizer_takes_the_same_next_step(kind):
    def fresh(weight):
        parameter = torch.nn.Parameter(weight.clone())
        if kind == "adamw":
            return parameter, torch.optim.AdamW([parameter], lr=0.1)
        return parameter, torch.optim.SGD([parameter], lr=0.1, momentum=0.9)

    def step(parameter, optimizer, gradient):
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()

    first, first_optimizer = fresh(torch.ones(3))
    step(first, first_optimizer, 0.3)
    second, second_optimizer = fresh(first.detach())
    saved = {n: t.clone() for n, t in optimizer_tensors(first_optimizer).items()}
    load_optimizer(second_optimizer, saved)
    step(first, first_optimizer, -0.7)
    step(second, second_optimizer, -0.7)
    assert torch.equal(first, second)
