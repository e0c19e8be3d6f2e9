"""What does not fit is refused by name, before anything is written, and what exists stays."""

import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from training_data import write_dataset

from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import registry
from vla_ros.training import checkpoints
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer


def trainer(settings: dict, **changes) -> Trainer:
    return Trainer(TrainConfig.from_dict(settings | changes))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("changes", "words"), [
    ({"stepps": 3}, "stepps: unknown field"),
    ({"steps": "many"}, "steps: 'many', expected an integer"),
    ({"steps": 0}, "steps 0, expected 1 or more"),
    ({"optimizer": {"lr": 1}}, "optimizer.lr: unknown field"),
    ({"optimizer": {"learning_rate": "fast"}}, "optimizer.learning_rate: 'fast', expected a number"),
    ({"optimizer": {"learning_rate": 5e-6}}, "final_learning_rate 1e-05, expected at most learning_rate, 5e-06"),
    ({"optimizer": {"clip_norm": -1.0}}, "optimizer.clip_norm: -1.0, expected"),  # would turn the gradient round
    ({"optimizer": {"beta2": 1.0}}, "optimizer.beta2: 1.0, expected"),
    ({"seed": -1}, "seed: -1, expected"),
    ({"lora": {"rank": 2, "target": "first", "alpha": 0.0}}, "lora.alpha: 0.0, expected"),  # would train nothing
    ({"micro_batch_size": 3}, "expected a divisor of batch_size 8"),
    ({"precision": "int8"}, "precision 'int8'"),
    ({"family": ""}, "expected one of the two"),
    ({"start": "x"}, "expected one of the two"),
    ({"held_out": 1.0}, "held_out 1.0"),
    ({"lora": {"rank": 2}}, "lora: .*target"),
    ({"freeze": "first"}, "freeze: 'first', expected a list, each a string"),
    ({"dataset": ""}, "dataset is not given"),
])
def test_configs_that_do_not_fit(settings, changes, words):
    with pytest.raises(InputError, match=words):
        TrainConfig.from_dict(settings | changes)


def test_a_config_file_is_named(tmp_path):
    with pytest.raises(InputError, match="absent.yaml"):
        TrainConfig.load(tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("steps: [")
    with pytest.raises(InputError, match="bad.yaml: not YAML"):
        TrainConfig.load(tmp_path / "bad.yaml")


def test_numbers_as_yaml_writes_them(settings, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings | {"optimizer": {"learning_rate": "1e-3"}}))
    assert TrainConfig.load(tmp_path / "c.yaml", steps=None, seed=3).optimizer.learning_rate == 1e-3


def test_an_unknown_family_and_a_folder_that_is_no_checkpoint(settings, tmp_path):
    with pytest.raises(InputError, match="policy family 'absent', expected one of .*'toy'"):
        trainer(settings, family="absent")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text(json.dumps({"type": "something"}))
    start = {"family": "", "policy": {}, "start": str(tmp_path / "other"), "statistics": "keep"}
    with pytest.raises(InputError, match="names 'something', expected one of the families"):
        trainer(settings, **start)
    assert not (tmp_path / "run").exists()


def test_statistics_that_are_missing_or_of_other_dimensions(settings, dataset, tmp_path):
    trainer(settings, output=str(tmp_path / "first")).run()
    start = tmp_path / "first/checkpoints/last"
    fine = settings | {"family": "", "policy": {}, "start": str(start), "statistics": "recompute"}
    other = write_dataset(tmp_path / "other", episodes=3)
    file = other / "meta/stats.json"
    statistics = json.loads(file.read_text())
    statistics["action"] = {name: value[:4] for name, value in statistics["action"].items()}
    file.write_text(json.dumps(statistics))
    used = trainer(fine, dataset=str(other)).loaded.processor  # those of the rows
    np.testing.assert_allclose(used.mean, Dataset(other).actions.mean(0), rtol=1e-5)
    config = json.loads((start / "config.json").read_text())
    del config["statistics"]
    (start / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="statistics are missing"):
        trainer(fine)


def test_datasets_that_do_not_fit(settings, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        trainer(settings, dataset=str(tmp_path / "absent"))
    spoilt = write_dataset(tmp_path / "spoilt", episodes=2)
    file = spoilt / "data/chunk-000/file-000.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[3]["observation.state"][1] = float("nan")
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(InputError, match="episode 0, frame 3: observation.state of joint shoulder_lift is nan"):
        trainer(settings, dataset=str(spoilt))
    one = write_dataset(tmp_path / "one", episodes=1)
    with pytest.raises(InputError, match="1 of 1 episodes, which leaves none to train on; set held_out: 0"):
        trainer(settings, dataset=str(one))
    empty = write_dataset(tmp_path / "empty", episodes=1)
    pq.write_table(pq.read_table(empty / "meta/episodes/chunk-000/file-000.parquet").slice(0, 0),
                   empty / "meta/episodes/chunk-000/file-000.parquet")
    with pytest.raises(InputError, match="no episodes"):
        trainer(settings, dataset=str(empty))


def test_cameras_joints_and_clock_must_fit(settings, dataset, tmp_path, monkeypatch):
    trainer(settings, output=str(tmp_path / "first")).run()
    load = registry.load
    fine = settings | {"family": "", "policy": {}, "start": str(tmp_path / "first/checkpoints/last"),
                       "statistics": "keep"}

    def changed(**fields):
        def loading(path, **options):
            loaded = load(path, **options)
            vars(loaded.processor).update(fields)
            return loaded
        return loading

    for fields, words in (
        ({"cameras": ("front", "top")}, "top: no such camera"),
        ({"joints": ("a", "b", "c", "d", "e", "f")}, "the policy expects"),
        ({"step_dt": 0.15}, "does not divide the policy's steps of 0.15 s"),
    ):
        monkeypatch.setattr(registry, "load", changed(**fields))
        with pytest.raises(InputError, match=words):
            trainer(fine)


def test_resuming_needs_the_same_run(settings, dataset, tmp_path):
    config = TrainConfig.from_dict(settings)
    with pytest.raises(InputError, match="nothing to resume"):
        Trainer(config, resume=True)
    Trainer(config).run()
    with pytest.raises(InputError, match="contains a run"):
        Trainer(config)
    with pytest.raises(InputError, match="steps 6, the run has made 12 already; expected as many or more"):
        Trainer(TrainConfig.from_dict(settings | {"steps": 6}), resume=True)
    with pytest.raises(InputError, match="batch_size 8 -> 4"):
        Trainer(TrainConfig.from_dict(settings | {"batch_size": 4}), resume=True)
    other = write_dataset(tmp_path / "other", episodes=5)
    with pytest.raises(InputError, match="training frames, the run had"):
        Trainer(TrainConfig.from_dict(settings | {"dataset": str(other)}), resume=True)
    other = write_dataset(tmp_path / "same_size", unit=lambda values: 0.5 * values)
    with pytest.raises(InputError, match="same_size are not those of the run; name its checkpoints/last as start"):
        Trainer(TrainConfig.from_dict(settings | {"dataset": str(other)}), resume=True)
    state = torch.load(tmp_path / "run/state.pt")
    torch.save(state | {"optimizer": state.pop("optimizers")["loss"]}, tmp_path / "run/state.pt")  # as it once was
    with pytest.raises(InputError, match="of an older version; name its checkpoints/last as start of a new run"):
        Trainer(config, resume=True)
    (tmp_path / "run/state.pt").write_bytes(b"half a file")
    with pytest.raises(InputError, match="cannot be read"):
        Trainer(config, resume=True)


def test_a_run_is_never_overwritten(settings, tmp_path):
    output, config = tmp_path / "run", TrainConfig.from_dict(settings | {"steps": 2})
    one, other = Trainer(config), Trainer(config)  # each before the other has written anything
    with checkpoints.alone(output):
        with pytest.raises(InputError, match="run: another process trains into it"):
            other.run()
        assert sorted(path.name for path in output.iterdir()) == [".training"]
    one.run()
    (output / "state.pt").unlink()  # to save space
    with pytest.raises(InputError, match="run: contains checkpoints of a run that cannot be resumed, without state.pt"):
        Trainer(config)


def test_resuming_needs_the_same_instructions_and_the_start_of_then(settings, dataset, tmp_path):
    """`checkpoints/last` of another run is another checkpoint when that run has gone on."""
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    Trainer(TrainConfig.from_dict(settings | {"dataset": str(copy), "output": str(tmp_path / "first")})).run()
    start = tmp_path / "first/checkpoints/last"
    given = {"family": "", "policy": {}, "start": str(start), "statistics": "keep", "dataset": str(copy)}
    Trainer(TrainConfig.from_dict(settings | given)).run()
    again = TrainConfig.from_dict(settings | given | {"steps": 13})
    Trainer(again, resume=True)
    file = start / "config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"statistics": [said["statistics"][0], [2.0] * 6]}))
    with pytest.raises(InputError, match=r"the policy's \['actions', 'state'\] .* are not those of the run"):
        Trainer(again, resume=True)
    file.write_text(json.dumps(said))
    table = copy / "meta/tasks.parquet"
    rows = pq.read_table(table)
    pq.write_table(rows.set_column(1, "task", pa.array(["go to 1", "go to 0", "go to 2"])), table)
    with pytest.raises(InputError, match="the instructions of dataset .*copy are not those of the run"):
        Trainer(again, resume=True)


def test_a_folder_that_cannot_be_written(settings, tmp_path):
    """A file where a folder is needed: refused for every user, root too, for whom permissions mean nothing."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="output .*file"):
        trainer(settings, output=str(tmp_path / "file/run"))
    assert (tmp_path / "file").read_text() == "mine"
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="Permission denied"):
            trainer(settings, output=str(tmp_path / "locked/run"))


def test_a_full_disk_leaves_the_old_state(settings, tmp_path):
    run = trainer(settings)
    run.run()
    before = contents(tmp_path / "run")
    state = {"weights": torch.zeros(100_000)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(InputError, match="training state .*/state.pt: cannot be written: "):
            checkpoints.save_state(tmp_path / "run", state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path / "run") == before


def test_a_full_disk_leaves_no_half_checkpoint(settings, tmp_path, monkeypatch):
    run = trainer(settings)
    run.run()
    before = contents(tmp_path / "run")

    def full(path, loaded):
        (path / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry, "save", full)
    with pytest.raises(InputError, match="step-000012: cannot be written: No space left on device"):
        run.save()
    assert contents(tmp_path / "run") == before


def test_a_gradient_that_is_not_finite_ends_the_run(settings, tmp_path):
    run = trainer(settings)
    with torch.no_grad():
        run.policy.last.bias[0] = np.inf
    with pytest.raises(InputError, match="step 0: the gradient is not finite"):
        run.run()


def test_processes_that_cannot_share(settings):
    from vla_ros.training.processes import Processes

    with pytest.raises(InputError, match="2 micro-batches .* cannot be shared by 3 processes"):
        Trainer(TrainConfig.from_dict(settings), Processes(rank=0, count=3))
    with pytest.raises(InputError, match="device 'gpu7'"):
        Processes.start("gpu7")
