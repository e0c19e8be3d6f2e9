"""Where a checkpoint is found: a run's folder and those in it, and what is said of a name of a hub."""

import shutil

import families
import pytest

from vla_ros.core.errors import InputError
from vla_ros.policies import describe, registry


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "act"
    registry.save(path, families.fresh("act"))
    return path


@pytest.mark.parametrize("inner", ["checkpoints/last/pretrained_model", "checkpoints/last"])
def test_a_folder_above_the_checkpoint_will_do(tmp_path, checkpoint, inner):
    place = tmp_path / "run" / inner
    shutil.copytree(checkpoint, place)
    (tmp_path / "policy.yaml").write_text("checkpoint: run\nstep_dt: 0.5\n")
    wanted = describe(place)
    while place != tmp_path:
        assert describe(place) == wanted
        place = place.parent
    assert "0.5 s apart" in describe(tmp_path / "policy.yaml")["horizon"]


def test_a_name_of_a_hub_is_answered_with_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "no such folder; a model of the Hugging Face hub is fetched first: hf download a/b --local-dir b"
    with pytest.raises(InputError, match=said):
        describe("a/b")
    (tmp_path / "policy.yaml").write_text("checkpoint: a/b\n")
    with pytest.raises(InputError, match=said):
        describe(tmp_path / "policy.yaml")
    with pytest.raises(InputError, match="b: no such folder$"):
        describe("b")
