"""Run by a Python that has LeRobot 0.6.1, not by ours: its actions from a folder.

    python lerobot_answers.py FOLDER SAMPLE.safetensors SIZES.json OUTPUT.safetensors

SAMPLE holds images (T, H, W, 3) uint8 by camera, "state" (T, S) and "noise"; SIZES the towers of a small π0, and the
task.
"""

import json
import os
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file, save_file


def small_pi0(module, sizes):
    """LeRobot's π0 has the published sizes alone: they are replaced."""
    from transformers.models.auto import CONFIG_MAPPING

    vision, towers = sizes["vision"], {"gemma_2b": sizes["prefix"], "gemma_300m": sizes.get("expert")}

    def fixed(config, **values):
        """Later assignments to these fields change nothing."""
        base = type(config)
        for name, value in values.items():
            base.__setattr__(config, name, value)
        config.__class__ = type(base.__name__, (base,), {
            "__setattr__": lambda self, name, value: None if name in values else base.__setattr__(self, name, value)
        })

    class Mapping(dict):
        def __getitem__(self, kind):
            def make(**fields):
                if kind != "paligemma":
                    return CONFIG_MAPPING[kind](**fields | {"vocab_size": sizes["vocabulary"]})
                config = CONFIG_MAPPING[kind]()
                fixed(config.vision_config, hidden_size=vision["hidden"], intermediate_size=vision["mlp"],
                      num_hidden_layers=vision["depth"], num_attention_heads=vision["heads"],
                      patch_size=vision["patch"], image_size=vision["image"], projection_dim=sizes["prefix"]["width"])
                fixed(config.text_config, vocab_size=sizes["vocabulary"])
                config.projection_dim = sizes["prefix"]["width"]
                return config

            return make

    def gemma(variant):
        size = towers[variant]
        return module.GemmaConfig(
            width=size["width"], depth=size["depth"], mlp_dim=size["mlp"], num_heads=size["heads"],
            num_kv_heads=size["kv_heads"], head_dim=size["head_dim"],
        )

    module.CONFIG_MAPPING, module.get_gemma_config = Mapping(), gemma


def tokenizer(folder, bos):
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    file = next(file for file in (folder / "tokenizer.json", folder / "vlm/tokenizer.json") if file.exists())
    made = PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token="<pad>", bos_token="<bos>")
    if bos:  # as PaliGemma's own
        special = [("<bos>", made.convert_tokens_to_ids("<bos>"))]
        made.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=special)
    return made


def fast(folder, text):
    """FAST's processor, whose code is not at hand, as π0-FAST's policy asks for it; and the prompt's tokenizer."""
    import lerobot.policies.pi0_fast.modeling_pi0_fast as policy
    import lerobot.processor.tokenizer_processor as step
    from transformers import PreTrainedTokenizerFast

    said = json.loads((folder / "fast/processor_config.json").read_text())
    pairs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "fast/tokenizer.json"))
    actions = SimpleNamespace(bpe_tokenizer=pairs, scale=said["scale"], min_token=said["min_token"])
    for module in (policy, step):
        module.AutoProcessor = SimpleNamespace(from_pretrained=lambda *_, **__: actions)
        module.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: text)


def main(folder, sample, sizes, output):
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    folder, sample, sizes = Path(folder), load_file(sample), json.loads(Path(sizes).read_text())
    os.chdir(folder)
    config = PreTrainedConfig.from_pretrained(folder)
    overrides = {}
    if config.type.startswith("pi0"):
        small_pi0(import_module(f"lerobot.policies.{config.type}.modeling_{config.type}"), sizes)
    if config.type == "smolvla":
        import lerobot.policies.smolvla.smolvlm_with_expert as towers

        ids = SimpleNamespace(fake_image_token_id=1, global_image_token_id=2)
        towers.AutoProcessor = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(tokenizer=ids))
    if config.type.startswith("pi0") or config.type == "smolvla":
        overrides["tokenizer_processor"] = {"tokenizer": tokenizer(folder, config.type != "smolvla")}
    if config.type == "pi0_fast":
        fast(folder, tokenizer(folder, bos=False))
    policy = get_policy_class(config.type).from_pretrained(folder, config=config, strict=True).eval()
    before, after = make_pre_post_processors(config, pretrained_path=str(folder), preprocessor_overrides=overrides)
    batches = []
    for step in range(len(sample["state"])):
        batch = {"observation.state": sample["state"][step], "task": sizes["task"]}
        for key, value in sample.items():
            if key.startswith("observation.images."):
                batch[key] = value[step].permute(2, 0, 1).float() / 255
        batches.append(before(batch))
    batch = batches[-1]
    if config.type == "diffusion":
        batch = {key: torch.stack([each[key] for each in batches], dim=1) for key in batch if "observation" in key}
    noise = {"noise": sample["noise"]} if config.type in ("pi0", "pi05", "smolvla", "diffusion") else {}
    drawn = mock.patch("torch.randn", lambda *_, **__: sample["noise"].clone())  # where it cannot be given
    with torch.no_grad(), drawn if config.type in ("xvla", "groot") else nullcontext():
        actions = policy.predict_action_chunk(batch, **noise)
    save_file({"actions": after(actions).contiguous()}, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
