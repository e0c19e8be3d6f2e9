"""Where today's transformers, called as the published code calls it, would be silently wrong and ours is not."""

import golden_vectors
import torch
from golden_vectors import Scaled
from robovlms_golden import batch_of, error, golden
from transformers import GemmaConfig, GemmaModel, Kosmos2Config
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2Model


def filled(module, name, prefix):
    """The module with the weights of a golden vector whose keys begin with `prefix`, and what it still lacks."""
    _, said, shapes = golden_vectors.load(f"robovlms_{name}")
    tensors = Scaled(shapes, said["fill_rules"])
    state = {key.removeprefix(prefix): next(tensors.pieces(key))[1] for key in shapes if key.startswith(prefix)}
    return module.eval(), module.load_state_dict(state, strict=False).missing_keys


@torch.no_grad()
def test_kosmos_latents_are_not_masked_causally():
    """`image_to_text_projection.x_attn.is_causal` is true, which the default attention heeds."""
    policy, vectors, said = golden("kosmos_lstm")
    text, vision = said["text"], said["vision"]
    config = Kosmos2Config(
        text_config=text, latent_query_num=said["latent_query_num"],
        vision_config={"hidden_size": vision["hidden"], "intermediate_size": vision["mlp"], "image_size": 28,
                       "num_hidden_layers": vision["layers"], "num_attention_heads": vision["heads"],
                       "patch_size": 14},
    )
    images, theirs = batch_of(vectors).flatten(0, 1)[:, :1], vectors["image_features_static"]
    assert error(policy.backbone.see(images, None, None), theirs) < 3e-5
    errors = {}
    for attention in ("eager", "sdpa"):
        config._attn_implementation = attention
        model, missing = filled(Kosmos2Model(config), "kosmos_lstm", "model.backbone.")
        assert not [key for key in missing if key.startswith(("vision_model", "image_to_text"))]
        seen = model.vision_model.model(images[:, 0])[0]
        features = torch.nn.functional.normalize(model.vision_model.model.post_layernorm(seen), dim=-1)
        errors[attention] = error(model.image_to_text_projection(features)[0][:, None], theirs)
    assert errors["eager"] < 3e-5 and errors["sdpa"] > 0.1, errors


@torch.no_grad()
def test_gemma_no_longer_scales_embeddings_that_it_is_given():
    policy, vectors, said = golden("paligemma_lstm")
    config = GemmaConfig(**{k: v for k, v in said["text"].items() if k != "model_type"}, hidden_act=said["text_act"])
    model, missing = filled(GemmaModel(config), "paligemma_lstm", "model.backbone.language_model.model.")
    assert missing == ["embed_tokens.weight"]
    x, mask = vectors["multimodal_embeds"], vectors["multimodal_mask"]
    ours = policy.backbone.read(x, mask)
    known = vectors["head_input"].flatten(0, 1)
    assert error(ours[:, -2:-1], known) < 3e-5

    def theirs(scale):
        return model(inputs_embeds=x * scale, attention_mask=mask.long()).last_hidden_state[:, -2:-1]

    assert error(theirs(said["hidden_size"] ** 0.5), known) < 3e-5 and error(theirs(1.0), known) > 0.1


@torch.no_grad()
def test_paligemma_sees_what_is_before_alone():
    """As published: no token types are passed, so that the prefix is not bidirectional. What comes later changes
    nothing."""
    policy, vectors, _ = golden("paligemma_lstm")
    x, mask = vectors["multimodal_embeds"], vectors["multimodal_mask"]
    changed = x.clone()
    changed[:, 9:] += 1
    one, two = (policy.backbone.read(rows, mask) for rows in (x, changed))
    assert torch.equal(one[:, :9], two[:, :9]) and not torch.equal(one[:, 9:], two[:, 9:])
