"""Datasets whose joints are in other units: refused until the config says which, then as those in rad."""

import json

import numpy as np
import pytest
from training_data import write_dataset

from vla_ros.core.errors import InputError
from vla_ros.datasets.check import check
from vla_ros.datasets.index import named_by_lerobot
from vla_ros.datasets.lerobot import Dataset
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer, open_policy
from vla_ros.training.units import bring_to_rad

RANGE = [-1.0, 1.5]
UNITS = [{"joint": "shoulder_pan", "unit": "degrees"}, {"joint": "shoulder_lift", "unit": "degrees"},
         {"joint": "elbow_flex", "scale": -100.0}, {"joint": "wrist_flex", "unit": "degrees"},
         {"joint": "wrist_roll", "unit": "range_m100_100", "range": RANGE},
         {"joint": "gripper", "unit": "range_0_100", "range": RANGE}]  # fmt: skip
SCALE = np.array([57.29578, 57.29578, -100, 57.29578, 80, 40])
OFFSET = np.array([0, 0, 0, 0, -20, 40.0])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same movements in rad, and in the units that UNITS names."""
    folder = tmp_path_factory.mktemp("units")
    return (write_dataset(folder / "rad", episodes=3),
            write_dataset(folder / "other", episodes=3, unit=lambda values: values * SCALE + OFFSET))


def test_values_that_cannot_be_rad_are_refused(both, settings):
    said = r"observation.state: \w+ reaches [\d.]+, which cannot be rad or m; .*unit: degrees.* in `units` of the"
    with pytest.raises(InputError, match=said):
        Trainer(TrainConfig.from_dict(settings | {"dataset": str(both[1])}))


def test_a_unit_of_one_joint_says_nothing_of_the_others(both, settings):
    config = TrainConfig.from_dict(settings | {"dataset": str(both[1]), "units": UNITS[-1:]})
    with pytest.raises(InputError, match="which cannot be rad or m"):
        open_policy(config, Dataset(both[1]))


def test_with_their_units_they_train_as_rad(both, settings):
    plain, other = (
        TrainConfig.from_dict(settings | {"dataset": str(path), "units": units})
        for path, units in zip(both, ([], UNITS), strict=True)
    )
    rad, told = Dataset(plain.dataset), Dataset(other.dataset)
    for config, data in ((plain, rad), (other, told)):
        open_policy(config, data)
    np.testing.assert_allclose(told.states, rad.states, atol=1e-5)
    np.testing.assert_allclose(told.actions, rad.actions, atol=1e-5)
    for feature in ("observation.state", "action"):
        assert told.statistics[feature].keys() == rad.statistics[feature].keys()
        for name, values in rad.statistics[feature].items():
            np.testing.assert_allclose(told.statistics[feature][name], values, atol=1e-4, err_msg=name)
    assert np.isfinite(list(Trainer(other).run().values())).all()


def renamed(path, rename):
    file = path / "meta" / "info.json"
    info = json.loads(file.read_text())
    for key in ("observation.state", "action"):
        info["features"][key]["names"] = [rename(name) for name in info["features"][key]["names"]]
    file.write_text(json.dumps(info))
    return path


@pytest.mark.parametrize("form", ["{}.pos", "main_{}"])
def test_small_values_under_lerobots_names_need_a_unit_each(tmp_path, settings, form):
    """Degrees of an arm that hardly moves look like rad."""
    path = renamed(write_dataset(tmp_path / "small", episodes=3), form.format)
    dataset = Dataset(path)
    names = dataset.joint_names
    assert [str(finding) for finding in check(dataset, pictures=False) if finding.kind == "units"] == [
        f"{', '.join(sorted(names))}: values that could be rad, under names of LeRobot's robots, which record degrees "
        "or percent; training needs their units"]
    said = "observation.state: {} is called as by LeRobot's robots, .*`- {{joint: {}, unit: degrees}}` .*, in `units`"
    degrees = [{"joint": name, "unit": "degrees"} for name in names]
    for units, joint in (([], names[0]), (degrees[:2], names[2])):
        with pytest.raises(InputError, match=said.format(joint, joint)):
            Trainer(TrainConfig.from_dict(settings | {"dataset": str(path), "units": units}))
    states = dataset.states.copy()
    bring_to_rad(dataset, degrees)
    np.testing.assert_allclose(dataset.states, np.radians(states), atol=1e-6)
    dataset = Dataset(path)
    bring_to_rad(dataset, [{"joint": name, "scale": 1} for name in names])
    np.testing.assert_array_equal(dataset.states, states)


@pytest.mark.parametrize(("names", "found"), [
    (["a.pos", "x.vel", "theta.vel"], {"a", "theta.vel"}), (["a", "x.vel", "theta.vel"], set()),
])  # fmt: skip
def test_lerobots_base_turns_in_degrees_a_second(names, found):
    assert named_by_lerobot({"names": names, "shape": [3]}, "here") == found


@pytest.mark.parametrize(("units", "message"), [
    ([{"joint": "elbow", "unit": "degrees"}], "joint 'elbow', expected each of .* at most once"),
    ([{"joint": "gripper", "unit": "degrees"}] * 2, "joint 'gripper', expected each of .* at most once"),
    ([{"joint": "gripper", "mode": "delta"}], "gripper: linkage or mode, expected a unit"),
    ([{"joint": "gripper", "unit": "turns"}], r"units\[0\]: unit 'turns'"),
])  # fmt: skip
def test_units_that_fit_no_joint(both, units, message):
    with pytest.raises(InputError, match=message):
        bring_to_rad(Dataset(both[0]), units)
