"""Prompts, tokenizers, images and units of π0 and π0.5."""

import numpy as np
import pi0_folders
import pi0_tiny
import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.images import resize_with_pad
from vla_ros.policies.normalisation import Normalisation
from vla_ros.policies.pi0.processor import Pi0Processor, prompt_ids, state_steps
from vla_ros.policies.tokenizer import filled, load_tokenizer, word_tokenizer


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    pi0_folders.write_sentencepiece(path)
    return load_tokenizer(path.parent)


class Letters:
    """A tokenizer whose ids can be read."""

    size, words, bos, special = 256, 256, 2, frozenset()

    def encode(self, text):
        return [ord(letter) for letter in text]


def test_state_in_steps_golden():
    assert state_steps(np.array([0.0, -1.0, 1.0, -1.5, 7.0])).tolist() == [128, 0, 255, -1, 255]


def test_prompts_golden():
    def text(ids):
        assert ids[0] == Letters.bos
        return "".join(map(chr, ids[1:]))

    state = np.array([0.0, -1.0, 1.0])
    assert text(prompt_ids(Letters(), " pick_up the\ncube ", "pi0", state)) == "pick up the cube\n"
    expected = "Task: pick up the cube, State: 128 0 255;\nAction: "
    assert text(prompt_ids(Letters(), " pick_up the\ncube ", "pi05", state)) == expected


def test_the_padded_prompt_of_old_lerobot_tells_the_padding_too():
    sample = pi0_tiny.sample(horizon=5)
    object.__setattr__(sample, "state", np.array([[0.0, -1.0, 1.0]]))
    batch = processor(Letters(), prompt="pi05_padded", adaptive=True, text_length=200).inputs([sample])
    text = "".join(map(chr, batch["tokens"][0][batch["token_mask"][0]][1:].tolist()))
    assert text == "Task: touch the red cube, State: 128 0 255 128 128 128 128;\nAction: "


def test_prompts_of_pi0_are_the_text_and_then_a_line_feed(sentencepiece_model):
    ids = prompt_ids(sentencepiece_model, "touch the red cube", "pi0", np.zeros(0))
    inner = sentencepiece_model.inner
    assert ids == [2, *inner.encode("touch the red cube"), *inner.encode("\n")]
    assert inner.decode(ids[1:]).strip() == "touch the red cube"


def test_a_tokenizer_survives_saving(sentencepiece_model, tmp_path):
    for name, tokenizer in (("a", sentencepiece_model), ("b", word_tokenizer(["touch the red cube"]))):
        folder = tmp_path / name
        folder.mkdir()
        tokenizer.save(folder)
        again = load_tokenizer(folder)
        assert again.encode("touch the green cube") == tokenizer.encode("touch the green cube")
        assert (again.size, again.bos) == (tokenizer.size, tokenizer.bos)


def test_words_that_look_all_the_same_are_told(sentencepiece_model):
    text = "Shove the RED cube, gently, then touch it; shove!"
    assert word_tokenizer(["touch the red cube"]).unknown_words(text) == ("shove", "gently")  # "then", "it" are common
    assert sentencepiece_model.unknown_words("touch the red cube") == ()


def test_a_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "broken.model").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken\.model"):
        load_tokenizer(tmp_path)


def processor(tokenizer, **changes):
    config = pi0_tiny.config(**{"text_length": 48, "vocabulary": 300} | changes)
    cameras = {"base_0_rgb": "front", "left_wrist_0_rgb": "wrist", "right_wrist_0_rgb": None}
    dimensions = tuple(Dimension(name) for name in pi0_tiny.JOINTS)
    identity = Normalisation("identity", {})
    return Pi0Processor(config, Embodiment(cameras, dimensions, dimensions, 0.1), identity, identity, "pad", tokenizer)


def test_images_are_resized_and_an_absent_camera_is_left_out(sentencepiece_model):
    sample = pi0_tiny.sample(horizon=5)
    batch = processor(sentencepiece_model).inputs([sample])
    assert batch["images"].shape == (1, 2, 3, 28, 28) and batch["images"].dtype == torch.uint8
    assert batch["cameras"].tolist() == [0, 1]
    expected = resize_with_pad(sample.images["wrist"][0], 28, 28).transpose(2, 0, 1)
    assert np.array_equal(batch["images"][0, 1].numpy(), expected)
    assert batch["state"].shape == (1, 7) and not batch["state"][0, 3:].any()
    assert batch["actions"].shape == (1, 5, 7) and not batch["actions"][..., 3:].any()


@pytest.mark.parametrize("adaptive", [False, True])
def test_what_is_left_out_changes_nothing(sentencepiece_model, adaptive):
    """Against the published form of the batch: a black image with mask False, and the prompt padded to the end."""
    changes = {"adaptive": adaptive, "prompt": "pi05" if adaptive else "pi0"}
    short = processor(sentencepiece_model, **changes).inputs([pi0_tiny.sample(horizon=5)])
    assert short["tokens"].shape[1] < 48
    whole = dict(short)
    del whole["cameras"]
    whole["images"] = torch.cat([short["images"], torch.zeros(1, 1, 3, 28, 28, dtype=torch.uint8)], dim=1)
    whole["image_mask"] = torch.tensor([[True, True, False]])
    room = (0, 48 - short["tokens"].shape[1])
    whole["tokens"] = torch.nn.functional.pad(short["tokens"], room)
    whole["token_mask"] = torch.nn.functional.pad(short["token_mask"], room)
    model = pi0_tiny.policy(text_length=48, **changes)
    noise = pi0_tiny.noise(model.config, rows=1)
    torch.testing.assert_close(
        model.predict(short, {"noise": noise}), model.predict(whole, {"noise": noise}), rtol=1e-5, atol=1e-5
    )


def test_prompts_have_few_lengths():
    def lengths(most, step):
        return sorted({filled([[1] * n], most, step)[0].shape[1] for n in range(1, most + 1)})

    assert lengths(48, 16) == [16, 32, 48]
    assert lengths(200, 32) == [32, 64, 96, 128, 160, 192, 200]


def test_a_long_prompt_is_cut_with_a_warning(sentencepiece_model, caplog):
    sample = pi0_tiny.sample(horizon=5)
    object.__setattr__(sample, "instruction", "touch the red cube " * 40)
    batch = processor(sentencepiece_model).inputs([sample])
    assert batch["tokens"].shape == (1, 48) and batch["token_mask"].all()
    assert "cut to 48" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [({"state_dim": 2}, "state of 3"), ({"action_dim": 2}, "action of 3"), ({"vocabulary": 100}, "tokenizer of 200")],
)
def test_what_does_not_fit_is_named(sentencepiece_model, change, message):
    with pytest.raises(InputError, match=message):
        processor(sentencepiece_model, **change)


def test_a_sample_that_does_not_fit_is_named(sentencepiece_model):
    sample = pi0_tiny.sample(horizon=5)
    wrong = processor(sentencepiece_model)
    object.__setattr__(sample, "state", np.zeros((1, 4)))
    with pytest.raises(InputError, match=r"state of \(1, 4\)"):
        wrong.inputs([sample])
    sample = pi0_tiny.sample(horizon=5)
    del sample.images["wrist"]
    with pytest.raises(InputError, match="wrist"):
        wrong.inputs([sample])


@pytest.mark.parametrize("style", ["openpi", "lerobot"])
@pytest.mark.parametrize("mode", ["identity", "mean_std", "quantiles", "min_max"])
def test_normalisation_is_invertible(mode, style):
    statistics = pi0_tiny.training_data().statistics["action"]
    normalisation = Normalisation(mode, statistics, style)
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert normalisation.restore(normalisation.normalise(x)) == pytest.approx(x, abs=1e-6)


def test_normalisation_golden():
    mean_std = {"mean": np.array([1.0]), "std": np.array([2.0])}
    quantiles = {"q01": np.array([-1.0]), "q99": np.array([3.0])}
    assert Normalisation("mean_std", mean_std).normalise(np.array([5.0])) == pytest.approx(4 / (2 + 1e-6), rel=1e-12)
    assert Normalisation("quantiles", quantiles).normalise(np.array([2.0])) == pytest.approx(
        2 * 3 / (4 + 1e-6) - 1, rel=1e-12
    )
    still = {"q01": np.array([0.5]), "q99": np.array([0.5])}
    assert np.isfinite(Normalisation("quantiles", still, "lerobot").normalise(np.array([0.5]))).all()
    with pytest.raises(InputError, match="q01"):
        Normalisation("quantiles", mean_std)
    with pytest.raises(InputError, match="at least 2"):
        Normalisation("mean_std", mean_std).normalise(np.zeros(2))
