"""Names of two towers in transformers' spelling, shared by published vision-language models."""


def siglip(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    """Rules for `weights.renamed`; `theirs` is a regular expression of the module's name, `ours` ours."""
    layer, mine = rf"{theirs}\.encoder\.layers\.(\d+)\.", rf"{ours}.layers.\1."
    return (
        (rf"{theirs}\.embeddings\.patch_embedding\.(.*)", rf"{ours}.patches.\1"),
        (rf"{theirs}\.embeddings\.position_embedding\.weight", f"{ours}.positions"),
        (layer + r"layer_norm(\d)\.(.*)", mine + r"norm\2.\3"),
        *((layer + rf"self_attn\.{name}_proj\.(.*)", mine + rf"qkv.\2[{n}]") for n, name in enumerate("qkv")),
        (layer + r"self_attn\.out_proj\.(.*)", mine + r"out.\2"),
        (layer + r"mlp\.(fc\d)\.(.*)", mine + r"\2.\3"),
        (rf"{theirs}\.post_layernorm\.(.*)", rf"{ours}.norm.\1"),
    )


def decoder(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    """The same for the layers of a Llama or Gemma tower; norms may have an adaptive part (`dense`)."""
    layer, mine = rf"{theirs}\.layers\.(\d+)\.", rf"{ours}.\1."
    return (
        (layer + r"input_layernorm\.(.*)", mine + r"input_norm.\2"),
        (layer + r"post_attention_layernorm\.(.*)", mine + r"post_norm.\2"),
        *((layer + rf"self_attn\.{name}_proj\.(.*)", mine + rf"qkv.\2[{n}]") for n, name in enumerate("qkv")),
        (layer + r"self_attn\.o_proj\.(.*)", mine + r"out.\2"),
        *((layer + rf"mlp\.{name}_proj\.(.*)", mine + rf"gate_up.\2[{n}]") for n, name in enumerate(("gate", "up"))),
        (layer + r"mlp\.down_proj\.(.*)", mine + r"down.\2"),
    )
