"""Names of Diffusion Policy's tensors in published files."""

import re

from vla_ros.policies.formats.weights import Unused, renamed

# Published image encoders are sequences without the classifier: 0 convolution, 1 normalisation, 4 to 7 the stages.
_SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
RULES = (
    (r"language_encoder\.(vision_model\..*|visual_projection\..*|logit_scale|.*\.position_ids)",
     Unused("only the text tower of a CLIP model is read")),
    *((rf"(.*\bbackbone)\.{number}\.(.*)", rf"\1.{name}.\2") for number, name in _SEQUENCE.items()),
)


def module_key(key: str) -> str:
    """A key of a LeRobot file (`diffusion.`) or of an InternManip file (`action_head.`) to the module's: the prefix
    is removed, the image encoder's numbers become names."""
    return renamed(re.sub(r"^(diffusion|action_head)\.", "", key), RULES)
