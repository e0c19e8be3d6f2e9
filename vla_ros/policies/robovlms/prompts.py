"""Prompts and image processing of RoboVLMs' vision-language models."""

from dataclasses import dataclass

from vla_ros.core.errors import InputError, shown
from vla_ros.policies.tokenizer import Tokenizer, cut, spoken

LONGEST = 512  # tokens


@dataclass(frozen=True)
class Prompt:
    """Prompt of one kind of vision-language model.

    Attributes:
        text: around the instruction.
        start, end: "bos", "eos" or nothing: ids before and after the text.
        asked: the same two for the question to the discrete decoder.
        closed: whether that question ends with a line feed; for other models the published code removes it.
    """

    text: str
    start: str = ""
    end: str = ""
    asked: tuple[str, str] = ("", "")
    closed: bool = False


PROMPTS = {
    "kosmos": Prompt("<grounding>An image of a robot {}", "bos", "eos", ("bos", "eos"), closed=True),
    "paligemma": Prompt("{}\n", "eos", asked=("bos", ""), closed=True),
    "llava": Prompt("{}"),  # of MPT, which has no <bos>
    "qwen": Prompt("{}"),
    "moondream": Prompt("<|endoftext|>{}"),
    "uform": Prompt("<image> {}"),
    "flamingo": Prompt("<image>{}<|endofchunk|>", end="eos"),
    "default": Prompt("<|endoftext|>{}"),
}


@dataclass(frozen=True)
class Pictures:
    """Image processing.

    Attributes:
        size: height and width, pixels, if the configuration has no `image_size`.
        fit: a key of `policies.images.FITS`.
        mean, std: of colour values 0 to 1, (3,) each.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: str = "bicubic"


CLIP_PIXELS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def images(kind: str) -> Pictures:
    """Images are scaled to a square, bicubic, and normalised by CLIP's mean and std; PaliGemma's to [-1, 1].

    Raises InputError for an unknown kind.
    """
    _prompt(kind)
    if kind == "paligemma":
        return Pictures(224, (0.5,) * 3, (0.5,) * 3)
    return Pictures(448 if kind == "qwen" else 224, *CLIP_PIXELS)


def text(kind: str, instruction: str) -> str:
    """The text that is tokenised for the continuous heads, without ids before and after it. Raises InputError for an
    unknown kind."""
    return _prompt(kind).text.format(instruction.strip())


def question(kind: str, instruction: str, steps: int) -> str:
    """The same for the discrete decoder, which generates the answer after it.

    Args:
        steps: number in the question. It is `fwd_pred_next_n` + 1 in evaluations and in training on CALVIN, and
            `fwd_pred_next_n` in training on Open X-Embodiment, although one step is decoded.
    """
    what = "What action" if steps == 1 else f"What {steps} step actions"
    asked = f"{what} should the robot take to {instruction}?".replace("<image>", "").strip()
    return f"Input: {asked}\nOutput:" + (" \n" if _prompt(kind).closed else "")


def ids(kind: str, tokenizer: Tokenizer, instruction: str, longest: int = LONGEST) -> list[int]:
    """Ids of `text`, at most `longest`. Raises InputError for an unknown kind, and for an instruction that contains
    special tokens."""
    prompt = _prompt(kind)
    return _ids(tokenizer, instruction, text(kind, instruction), prompt.start, prompt.end, longest)


def question_ids(
    kind: str, tokenizer: Tokenizer, instruction: str, steps: int, longest: int = LONGEST
) -> list[int]:
    """Ids of `question`; errors as in `ids`. If <bos> and <eos> are the same token (MPT), the published evaluation
    drops the question's last token, which its training has; here it is kept."""
    return _ids(tokenizer, instruction, question(kind, instruction, steps), *_prompt(kind).asked, longest)


def _ids(tokenizer: Tokenizer, instruction: str, said: str, start: str, end: str, longest: int) -> list[int]:
    added = range(tokenizer.words, tokenizer.size)  # to the vocabulary: images, places, <grounding>
    spoken(tokenizer.encode(instruction), tokenizer, instruction, added)
    first, last = ([] if not name else [_mark(tokenizer, name)] for name in (start, end))
    return first + cut(tokenizer.encode(said), longest - len(first) - len(last)) + last


def _mark(tokenizer: Tokenizer, name: str) -> int:
    if name == "bos":
        return tokenizer.bos
    if tokenizer.eos is None:
        raise InputError("tokenizer: no token </s> or <eos>, expected one that ends a prompt: give that of the "
                         "checkpoint's vision-language model")
    return tokenizer.eos


def _prompt(kind: str) -> Prompt:
    if kind not in PROMPTS:
        raise InputError(f"robovlms: model {shown(kind)}, expected one of {sorted(PROMPTS)}")
    return PROMPTS[kind]
