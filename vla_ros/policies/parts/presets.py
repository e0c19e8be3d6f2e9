"""Sizes of published towers and language models, by short and by full names."""

_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_DINO = {"kind": "dinov2", "patch_size": 14, "image_size": 224, "positions": 518}
_TOWERS = {  # short name, full name: kind and fields of its size
    ("siglip-base", "google/siglip-base-patch16-224"): _BASE | {"kind": "siglip", "patch_size": 16, "image_size": 224},
    ("siglip-large", "google/siglip-large-patch16-384"):
        _LARGE | {"kind": "siglip", "patch_size": 16, "image_size": 384},
    ("clip-base", "openai/clip-vit-base-patch32"): _BASE | {"kind": "clip", "patch_size": 32, "image_size": 224},
    ("clip-large", "openai/clip-vit-large-patch14"): _LARGE | {"kind": "clip", "patch_size": 14, "image_size": 224},
    ("dinov2-base", "facebook/dinov2-base"): _BASE | _DINO,
    ("dinov2-large", "facebook/dinov2-large"): _LARGE | _DINO,
}


def _text(kind: str, *sizes: float) -> dict[str, object]:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
             "vocabulary", "rope_theta", "rms_norm_eps")
    return {"kind": kind, **dict(zip(names, sizes, strict=True))}


_LANGUAGES = {
    ("qwen2-0.5b", "Qwen/Qwen2-0.5B-Instruct"): _text("qwen2", 896, 24, 14, 2, 4864, 151_936, 1e6, 1e-6),
    ("qwen2-1.5b", "Qwen/Qwen2-1.5B-Instruct"): _text("qwen2", 1536, 28, 12, 2, 8960, 151_936, 1e6, 1e-6),
    ("qwen2-7b", "Qwen/Qwen2-7B-Instruct"): _text("qwen2", 3584, 28, 28, 4, 18_944, 152_064, 1e6, 1e-6),
    ("llama-3-8b", "meta-llama/Meta-Llama-3-8B-Instruct"):
        _text("llama", 4096, 32, 32, 8, 14_336, 128_256, 5e5, 1e-5),
    ("phi-3-mini", "microsoft/Phi-3-mini-4k-instruct"): _text("phi3", 3072, 32, 32, 32, 8192, 32_064, 1e4, 1e-5),
    ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"): _text("llama", 576, 30, 9, 3, 1536, 49_152, 1e5, 1e-5),
    ("smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct"): _text("llama", 960, 32, 15, 5, 2560, 49_152, 1e5, 1e-5),
    ("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct"):
        _text("llama", 2048, 24, 32, 32, 8192, 49_152, 130_000.0, 1e-5),
}
TOWER_SIZES = {name: row for names, row in _TOWERS.items() for name in names}
LANGUAGE_SIZES = {name: row for names, row in _LANGUAGES.items() for name in names}
