"""OpenVLA's and OFT's networks against outputs of the published code."""

import golden_vectors
import pytest
import torch

from vla_ros.nn.llama import TextSize
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.openvla import tokens
from vla_ros.policies.openvla.config import OpenVLAConfig, TowerSize
from vla_ros.policies.openvla.files import Merged
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.openvla.names import rename
from vla_ros.policies.openvla.vision import Vision

OFT = ("openvla_oft_l1", "openvla_oft_discrete", "openvla_oft_diffusion", "openvla_oft_aloha_film")
LIMIT = 3e-5  # between float32 programs; the mildest mistake, tanh for exact GELU, shows as 9e-4


def tower(said, row, **more):
    if row is None:
        return None
    side = {"patch": said["patch"], "image": said["image"]}
    return TowerSize(row["width"], row["depth"], row["heads"], row["mlp"], **side, **more)


def config_of(said):
    text = said["text"]
    width, heads = text["hidden_size"], text["num_attention_heads"]
    head = {"l1": "l1", "diffusion": "diffusion", None: "tokens"}[said["head"]] if "head" in said else "autoregressive"
    return OpenVLAConfig(
        action_dim=said.get("action_dim", 7), cameras=tuple("abc"[: said.get("n_images", 1)]),
        dino=tower(said, said["dino"], prefix=5, layer_scale=True), siglip=tower(said, said["siglip"]),
        text=TextSize(width, heads, heads, width // heads, text["intermediate_size"], text["vocab_size"], 1e-6),
        layers=text["num_hidden_layers"], head=head, chunk=said.get("chunk", 1),
        state_dim=said["proprio_dim"] if said.get("proprio") else 0, film=said.get("film", False),
        num_steps=(said.get("diffusion") or {"inference_steps": 50})["inference_steps"],
    )


def golden(name):
    vectors, said, shapes = golden_vectors.load(name)
    with torch.device("meta"):
        policy = OpenVLA(config_of(said)).eval()
    load_weights(policy, golden_vectors.Scaled(shapes, said["fill_rules"]), "golden", rename(policy.config, shapes))
    return policy, vectors, said


def pictures(policy, values):
    """(B, cameras, towers, 3, H, W) of channels one behind the other."""
    config = policy.config
    return values.unflatten(1, (len(config.cameras), len(config.pictures), 3))


def prompts(policy, ids, mask):
    """Of published rows: the prompts alone, the actions' ids (B, H, D)."""
    config = policy.config
    count = config.chunk * config.action_dim
    rows, actions = [], []
    for row, length in zip(ids, mask.sum(1), strict=True):
        whole = row[:length]
        assert whole[-1] == 2 and whole[-2 - count] == 29871
        rows.append(whole[: -2 - count])
        actions.append(whole[-1 - count : -1])
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=7)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return {"tokens": tokens, "token_mask": mask}, torch.stack(actions).unflatten(1, (-1, config.action_dim))


def alone(ids):
    """Of one prompt, with its blank or without."""
    ids = ids[:, :-1] if ids[0, -1] == 29871 else ids
    return {"tokens": ids, "token_mask": torch.ones_like(ids, dtype=torch.bool)}


close = pytest.approx


def assert_near(ours, theirs):
    assert ours.shape == theirs.shape
    error = (ours - theirs).abs().max().item()
    assert error <= LIMIT * max(1, theirs.abs().max().item()), error


@pytest.mark.parametrize("name", ["openvla", "openvla_v01"])
@torch.no_grad()
def test_autoregressive_features_logits_loss_and_tokens(name):
    policy, vectors, said = golden(name)
    pixels = pictures(policy, vectors["pixel_values"])
    for i, (key, tower) in enumerate(policy.vision.towers.items()):
        stored = f"{key}_features" if name == "openvla" else "vision_features"
        assert_near(tower(pixels[:, 0, i], None), vectors[stored])
    assert_near(policy.vision(pixels), vectors["projector_features"])
    batch, ids = prompts(policy, vectors["input_ids"], vectors["attention_mask"])
    batch["images"] = pixels
    assert policy.token_loss(batch, ids, torch.ones(2, 1, dtype=torch.bool)).item() == close(
        vectors["loss"].item(), abs=LIMIT
    )
    # What lies on a bin's centre has its id again, so that the loss of the actions is the loss of the ids.
    actions = torch.from_numpy(tokens.decode(ids, 32000))
    assert policy.loss(batch | {"actions": actions})["loss"].item() == close(vectors["loss"].item(), abs=LIMIT)
    tail = torch.cat([torch.full((2, 1), 29871), ids.flatten(1), torch.full((2, 1), 2)], dim=1)
    x, valid = policy.prompt(batch, tail)
    known = torch.nn.functional.pad(vectors["attention_mask"], (9, 0), value=1).bool()
    assert_near(x[valid], vectors["llm_inputs_embeds"][known])
    hidden = policy.layered(x, policy._rotary(valid.cumsum(1) - 1), policy._causal(valid))
    assert_near(hidden[valid], vectors["llm_last_hidden"][known])
    logits = policy.head(hidden[valid])
    assert_near(logits[:, 31744:32000], vectors["logits_action_range"][known])
    assert torch.equal(logits.argmax(-1), vectors["logits_argmax"][known])


@pytest.mark.parametrize("name", ["openvla", "openvla_v01"])
@torch.no_grad()
def test_greedy_tokens_with_and_without_the_blank(name):
    policy, vectors, said = golden(name)
    for n in range(2):
        images = pictures(policy, vectors["pixel_values"][n : n + 1])
        answer = policy.predict({"images": images, **alone(vectors[f"gen{n}_prompt_ids"])})
        assert torch.equal(answer, vectors[f"gen{n}_token_ids"])
        centres = torch.from_numpy(tokens.decode(answer[0], 32000))
        torch.testing.assert_close(centres, vectors[f"gen{n}_normalized"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OFT)
@torch.no_grad()
def test_oft_training(name):
    policy, vectors, said = golden(name)
    config = policy.config
    batch, ids = prompts(policy, vectors["input_ids"], vectors["attention_mask"])
    batch |= {"images": pictures(policy, vectors["pixel_values"]), "actions": vectors["actions"]}
    if config.state_dim:
        batch["state"] = vectors["proprio"]
    beside = vectors["projector_features"]  # images, proprioception, time
    if config.head != "diffusion":
        assert_near(policy.sequence(batch).embedded[:, 1 : 1 + beside.shape[1]], beside)
    draws = {}
    if config.head == "diffusion":
        draws = {"noise": vectors["train_noise"], "time": vectors["train_timesteps"]}
        noisy = policy.noised(vectors["actions"], draws["noise"], draws["time"])
        assert_near(noisy, vectors["train_noisy_actions"])
        assert_near(policy.action_head(policy.hidden(policy.sequence(batch), noisy, draws["time"])[:, :-1]),
                    vectors["train_noise_pred"])
    if config.head == "l1":
        predicted = policy.action_head(policy.hidden(policy.sequence(batch))[:, :-1])
        assert_near(predicted, vectors["train_predicted_actions"])
    if config.head != "tokens":
        name = {"l1": "train_l1_loss", "diffusion": "train_mse_loss"}[config.head]
        assert policy.loss(batch, **draws)["loss"].item() == close(vectors[name].item(), abs=LIMIT)
    if config.head != "diffusion":  # there the published code adds noise to what its token loss reads
        kept = torch.ones(2, config.chunk, dtype=torch.bool)
        assert policy.token_loss(batch, ids, kept).item() == close(vectors["train_ce_loss"].item(), abs=LIMIT)


@pytest.mark.parametrize("name", OFT)
@torch.no_grad()
def test_oft_inference(name):
    policy, vectors, said = golden(name)
    config = policy.config
    batch = alone(vectors["infer_prompt_ids"]) | {"images": pictures(policy, vectors["pixel_values"][:1])}
    if config.state_dim:
        batch["state"] = vectors["infer_proprio_normalized"][None].float()
    context = policy.encode(batch)
    known = vectors["infer_llm_inputs_embeds"]
    start = known.shape[1] - 1 - config.chunk * config.action_dim
    if config.head != "diffusion":
        assert_near(context.embedded, known)
        assert_near(policy.hidden(context)[:, :-1], vectors["infer_actions_hidden"])
    else:
        assert_near(context.embedded[:, :10], known[:, :10])
        assert_near(context.embedded[:, 13:start], known[:, 13:start])
    answer = policy.predict(batch, {"noise": vectors.get("infer_noise")})
    if config.head == "tokens":
        assert torch.equal(answer, vectors["infer_token_ids"])
    elif "infer_normalized" in vectors:
        assert_near(answer, vectors["infer_normalized"])
    else:
        norm = said["norm_stats"]["tiny"]["action"]
        low, high, mask = (torch.tensor(norm[n]) for n in ("q01", "q99", "mask"))
        theirs = vectors["infer_actions"]
        back = torch.where(mask, 0.5 * (answer[0] + 1) * (high - low + 1e-8) + low, answer[0])
        assert (back - theirs).abs().max() < 1e-5




@torch.no_grad()
def test_film_and_adapters_that_were_not_merged():
    vectors, said, shapes = golden_vectors.load("openvla_oft_film_lora")
    side = {"patch": 14, "image": said["image"]}
    dino, siglip = (said[name] for name in ("dino", "siglip"))
    config = OpenVLAConfig(
        action_dim=7, cameras=("a", "b"), head="l1", film=True,
        dino=TowerSize(dino["width"], dino["depth"], dino["heads"], 96, **side, prefix=5, layer_scale=True),
        siglip=TowerSize(siglip["width"], siglip["depth"], siglip["heads"], 119, **side),
        text=TextSize(said["llm_dim"], 4, 4, 8, 64, 32064), layers=0,
    )
    merged = Merged(golden_vectors.Filled(shapes))
    key = "vision_backbone.featurizer.blocks.0.block.attn.qkv.weight"
    torch.testing.assert_close(merged.read(key), vectors["merged_qkv_block0"])
    torch.testing.assert_close(
        merged.read("vision_backbone.featurizer.patch_embed.proj.weight"), vectors["merged_patch_embed"]
    )
    vision = torch.nn.Module()
    vision.vision = Vision(config)
    vision.vision.projector = torch.nn.ModuleList()
    load_weights(vision, merged, "golden", rename(config, merged.shapes))
    values = vectors["pixel_values"].unflatten(1, (2, 2, 3))
    assert_near(vision.vision(values, vectors["language_embeddings"].mean(dim=1)), vectors["patch_features"])
