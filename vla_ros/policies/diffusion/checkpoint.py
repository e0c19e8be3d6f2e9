"""Names of Diffusion Policy's tensors in published files."""

import re

# Published image encoders are sequences without the classifier: 0 convolution, 1 normalisation, 4 to 7 the stages.
_SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_BACKBONE = re.compile(r"(.*\bbackbone)\.(\d)\.(.*)")


def module_key(key: str) -> str:
    """A key of a LeRobot file to the module's: the prefix `diffusion.` goes, the image encoder's numbers get names."""
    key = key.removeprefix("diffusion.")
    match = _BACKBONE.fullmatch(key)
    return f"{match[1]}.{_SEQUENCE.get(match[2], match[2])}.{match[3]}" if match else key
