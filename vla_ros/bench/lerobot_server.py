"""LeRobot's policies in a separate process, for `lerobot_peer` to measure.

Run by a Python that imports lerobot. It does not need vla_ros. Requests are lines of JSON on standard input, each
answered by a line on standard output; whatever else is printed goes to standard error.
"""

import contextlib
import json
import os
import resource
import sys
import time
import types
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file, save_model

TOWERS = "towers.json"  # beside a small π0-FAST


class Server:
    """One policy, its inputs, and its last chunk."""

    def open(self, folder: str, device: str, dtype: str, threads: int, steps: int | None) -> dict:
        """Load a folder. One without weights gets random ones, which are written into it."""
        from lerobot import __version__
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        place = Path(folder)
        os.chdir(place)  # a folder's config.json may name parts that lie in it
        config = PreTrainedConfig.from_pretrained(place)
        config.device = device
        self.family, self.device, self.autocast = config.type, torch.device(device), False
        if self.family == "smolvla" and not (place / "vlm" / "preprocessor_config.json").is_file():
            _without_processor()
        if self.family == "pi0_fast":
            config.dtype = dtype
            _without_fast_tokenizers()
            if (place / TOWERS).is_file():
                _sized_pi0_fast(json.loads((place / TOWERS).read_text()))
        kind = get_policy_class(config.type)
        weights = place / "model.safetensors"
        if weights.is_file():
            policy = kind.from_pretrained(place, config=config, strict=True)
        else:
            policy = kind(config).to(device).eval()
            save_model(policy, str(weights))
        if dtype == "bfloat16" and self.family == "smolvla":  # as its published weights are loaded: projections apart
            policy.model.vlm_with_expert.to(torch.bfloat16)
        elif dtype == "bfloat16" and self.family != "pi0_fast":
            self.autocast = True
        if steps is not None and self.family == "diffusion":
            policy.diffusion.num_inference_steps = steps
        elif steps is not None and self.family == "smolvla":
            policy.config.num_steps = steps
        elif steps is not None and self.family == "groot":
            policy._groot_model.action_head.num_inference_timesteps = steps
        if self.family == "xvla":
            self.steps = steps or config.num_denoising_steps
        self.policy = policy.eval().requires_grad_(False)
        return {"lerobot": __version__, "torch": torch.__version__}

    def inputs(self, file: str) -> dict:
        """Tensors for the calls to come."""
        self.tensors = {key: value.to(self.device) for key, value in load_file(file).items()}
        return {}

    def run(self) -> dict:
        """One inference, until its chunk has arrived on the host."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            self.result = self._infer().float().cpu()
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {"seconds": seconds, "memory": torch.cuda.max_memory_allocated() if cuda else peak}

    def output(self, file: str) -> dict:
        """Write the last chunk, (1, rows, D) normalised, or (1, L) tokens."""
        save_file({"actions": self.result.contiguous()}, file)
        return {}

    def _infer(self) -> torch.Tensor:
        x = self.tensors
        if self.family == "act":
            return self.policy.predict_action_chunk(dict(x))
        if self.family == "diffusion":
            return self.policy.diffusion.generate_actions(dict(x), noise=x["noise"])
        if self.family in ("xvla", "groot"):  # which draw their noise themselves
            inputs = {key: value for key, value in x.items() if key != "noise"}
            with mock.patch("torch.randn", lambda *_, dtype=None, **__: x["noise"].to(dtype, copy=True)):
                if self.family == "xvla":
                    return self.policy.model.generate_actions(**inputs, steps=self.steps)
                return self.policy._groot_model.get_action(inputs)["action_pred"]
        images = list(x["images"].unbind(1))
        masks = [torch.ones(1, dtype=torch.bool, device=self.device) for _ in images]
        if self.family == "pi0_fast":
            self.policy.model._paligemma_tokenizer = types.SimpleNamespace(
                bos_token_id=int(x["start"]), convert_tokens_to_ids=lambda _: int(x["end"])
            )
            return self.policy.model.sample_actions_fast_kv_cache(
                images, masks, x["tokens"], x["token_mask"], max_decoding_steps=self.policy.config.max_decoding_steps
            )
        return self.policy.model.sample_actions(
            images, masks, x["tokens"], x["token_mask"], x["state"], noise=x["noise"]
        )


def _without_processor() -> None:
    """SmolVLA asks SmolVLM2's processor for the numbers of two tokens that it does not use by default."""
    from lerobot.policies.smolvla import smolvlm_with_expert

    tokens = types.SimpleNamespace(fake_image_token_id=0, global_image_token_id=0)
    processor = types.SimpleNamespace(tokenizer=tokens)
    smolvlm_with_expert.AutoProcessor = types.SimpleNamespace(from_pretrained=lambda *args, **options: processor)


def _without_fast_tokenizers() -> None:
    """π0-FAST's tokenizers are only needed for what happens before and after the network."""
    from lerobot.policies.pi0_fast import modeling_pi0_fast

    nothing = types.SimpleNamespace(from_pretrained=lambda *args, **options: None)
    modeling_pi0_fast.AutoProcessor = modeling_pi0_fast.AutoTokenizer = nothing


def _sized_pi0_fast(sizes: dict) -> None:
    """LeRobot builds π0-FAST in the published size only. `sizes`: of `vision`, `prefix` and `vocabulary`."""
    from lerobot.policies.pi0_fast import modeling_pi0_fast
    from lerobot.policies.pi_gemma import PaliGemmaForConditionalGenerationWithPiGemma

    vision, prefix, words = sizes["vision"], sizes["prefix"], sizes["vocabulary"]

    def sized(config):
        config.image_token_index = config._vocab_size = config.text_config.vocab_size = words
        config.projection_dim = config.vision_config.projection_dim = prefix["width"]
        fields = {"hidden_size": "hidden", "intermediate_size": "mlp", "num_hidden_layers": "depth",
                  "num_attention_heads": "heads", "patch_size": "patch", "image_size": "image"}  # fmt: skip
        for theirs, ours in fields.items():
            setattr(config.vision_config, theirs, vision[ours])
        return PaliGemmaForConditionalGenerationWithPiGemma(config=config)

    modeling_pi0_fast.PaliGemmaForConditionalGenerationWithPiGemma = sized
    modeling_pi0_fast.get_gemma_config = lambda variant: modeling_pi0_fast.GemmaConfig(
        prefix["width"], prefix["depth"], prefix["mlp"], prefix["heads"], prefix["kv_heads"], prefix["head_dim"]
    )


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print
    server = Server()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = getattr(server, order.pop("do"))(**order)
        except Exception as error:  # reported to the client, whatever it is
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
