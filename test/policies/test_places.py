"""Where a checkpoint is found: a run's folder and those in it, and what is said of a name of a hub."""

import json
import shutil
from pathlib import Path

import families
import lerobot_folders
import pytest

from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import describe, registry
from vla_ros.policies.tokenizer import load_tokenizer


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


@pytest.mark.parametrize(("said", "typed"), [
    ("a/b@main", "hf download a/b --revision main --local-dir b"), ("hf://a/b", "hf download a/b --local-dir b"),
    ("https://huggingface.co/a/b.c", "hf download a/b.c --local-dir b.c"),
    ("https://huggingface.co/a/b/tree/v2", "hf download a/b --revision v2 --local-dir b"),
    ("datasets/a/b", "hf download a/b --repo-type dataset --local-dir b"),
    ("~/nope/x", ""), ("/nope/x", ""), ("./a/b", ""), ("../a/b", ""), ("a/b/c", ""), ("there/b", ""), ("b", ""),
])  # fmt: skip
@pytest.mark.parametrize("field", ["checkpoint", "base", "tokenizer"])
def test_every_field_of_a_policy_file_is_answered(tmp_path, monkeypatch, checkpoint, said, typed, field):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "policy.yaml").write_text(json.dumps({"checkpoint": str(checkpoint)} | {field: said}))
    with pytest.raises(InputError, match=rf"{field} .*: no such folder{'; a .*: ' if typed else ''}{typed}$"):
        describe(tmp_path / "policy.yaml")
    if field == "base":
        with pytest.raises(InputError, match="base .*: no such folder"):
            describe(checkpoint, base=Path(said))
    if typed and "//" not in said:
        with pytest.raises(InputError, match=f"{typed}$"):
            describe(said)
    if field == "tokenizer":
        with pytest.raises(InputError, match="no such file or folder"):
            load_tokenizer(Path(said))


def test_a_dataset_is_answered_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="hf download lerobot/pusht --repo-type dataset --local-dir pusht$"):
        Dataset("lerobot/pusht")
    with pytest.raises(InputError, match="no such folder$"):
        Dataset("~/nope/x")


def in_cache(path, source, *revisions):
    for revision in revisions:
        shutil.copytree(source, path / "snapshots" / revision)
    return path


def test_folders_of_the_hubs_cache_are_found_or_named(tmp_path, checkpoint):
    folder = in_cache(tmp_path / "models--a--b", checkpoint, "1f")
    assert describe(folder) == describe(folder / "snapshots") == describe(checkpoint)
    in_cache(folder, checkpoint, "2e")
    with pytest.raises(InputError, match=r"snapshots \['1f', '2e'\], expected one; name that folder itself"):
        describe(folder)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("2e")
    assert registry.located(folder) == folder / "snapshots" / "2e"
    shutil.rmtree(folder / "snapshots")
    (folder / "snapshots").mkdir()
    with pytest.raises(InputError, match="snapshots none, expected one"):
        describe(folder)
    data = in_cache(tmp_path / "datasets--a--b", Path(__file__).parent.parent / "data/lerobot_datasets/image", "1f")
    assert Dataset(data).path == data / "snapshots" / "1f"


@pytest.mark.parametrize("step", ["checkpoints/step-{:06d}", "step-{:06d}", "checkpoints/{:06d}/pretrained_model"])
def test_a_run_without_its_link_names_its_checkpoints(tmp_path, checkpoint, step):
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / step.format(20))
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "last").symlink_to("gone")
    assert registry.located(run) == run / step.format(20)
    shutil.copytree(checkpoint, run / step.format(100))
    with pytest.raises(InputError, match=f"no link 'last', but 2 checkpoints; name one .*{step.format(100)}$"):
        describe(run)


def test_a_link_to_nowhere_is_told(tmp_path, checkpoint):
    last = tmp_path / "run" / "checkpoints" / "last"
    last.parent.mkdir(parents=True)
    last.symlink_to("000100")
    for place in (tmp_path / "run", last.parent, last, last / "pretrained_model"):
        with pytest.raises(InputError, match=f"{last} is a link to 000100, which does not exist$"):
            describe(place)
    with pytest.raises(InputError, match=f"base .*{last} is a link to 000100"):
        describe(checkpoint, base=last)


def test_a_file_of_the_checkpoint_stands_for_its_folder(tmp_path, checkpoint):
    for name in ("config.json", "model.safetensors"):
        assert describe(checkpoint / name) == describe(checkpoint)
        (tmp_path / "policy.yaml").write_text(f"checkpoint: {checkpoint / name}\n")
        assert describe(tmp_path / "policy.yaml") == describe(checkpoint)


def test_folders_one_below_are_named(tmp_path, checkpoint):
    with pytest.raises(InputError, match="config.json is missing$"):
        describe(tmp_path)
    shutil.copytree(checkpoint, tmp_path / "mine")
    with pytest.raises(InputError, match="config.json is missing; there is one in mine: name that folder"):
        describe(tmp_path)
    shutil.copytree(checkpoint, tmp_path / "other")
    with pytest.raises(InputError, match="there is one in mine and in other: "):
        describe(tmp_path)


@pytest.mark.parametrize("said", ["", " "])
def test_no_path_is_none(said):
    with pytest.raises(InputError, match=f"checkpoint '{said}': expected the path of a folder or of a policy file"):
        describe(said)


LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 123456\n"


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "embodiment.yaml"])
def test_pointers_of_git_lfs_are_told_as_what_they_are(tmp_path, checkpoint, file):
    shutil.copytree(checkpoint, tmp_path / "own")
    assert (tmp_path / "own" / file).exists()
    (tmp_path / "own" / file).write_text(LFS)
    with pytest.raises(InputError, match=f"{file}: a pointer of Git LFS, .*: git lfs pull"):
        registry.load(tmp_path / "own")


@pytest.mark.parametrize("file", [
    "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "data/chunk-000/file-000.parquet",
    "videos/observation.images.front/chunk-000/file-000.mp4",
])
def test_so_are_those_of_a_dataset(tmp_path, file):
    data = tmp_path / "data"
    shutil.copytree(Path(__file__).parent.parent / "data/lerobot_datasets/depth", data)
    assert (data / file).exists()
    (data / file).write_text(LFS)
    with pytest.raises(InputError, match=f"{file}: a pointer of Git LFS, .*: git lfs pull"):
        dataset = Dataset(data)
        for camera in dataset.camera_names:
            dataset.episode_frames(dataset.episodes[0], camera)


@pytest.mark.parametrize(("field", "said"), [
    ("checkpoint", "checkpoint: '', expected a path"), ("base", "base: '', expected a path"),
    ("tokenizer", "tokenizer: '', expected a path"), ("overrides", "overrides.statistics: '', expected a path"),
])  # fmt: skip
def test_an_empty_path_is_none(tmp_path, checkpoint, field, said):
    value = {"statistics": ""} if field == "overrides" else ""
    (tmp_path / "policy.yaml").write_text(json.dumps({"checkpoint": str(checkpoint)} | {field: value}))
    with pytest.raises(InputError, match=said):
        describe(tmp_path / "policy.yaml")


def test_an_empty_name_of_statistics_is_none(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "pi0")
    with pytest.raises(InputError, match="overrides.statistics '': no such file"):
        describe(folder, overrides={"statistics": ""})


def test_a_language_model_outside_of_the_checkpoint_is_not_looked_for(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "smolvla", vlm_model_name="../vlm")
    (folder / "vlm").rename(tmp_path / "vlm")
    with pytest.raises(InputError, match="'../vlm' is neither a folder inside of it, .*; name as tokenizer the folder"):
        describe(folder)
    assert describe(folder, tokenizer=tmp_path / "vlm")["family"] == "smolvla"
