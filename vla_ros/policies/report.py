"""What `vla-ros info` says about a policy."""

from collections.abc import Iterable

from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.formats.weights import Rename, Unused
from vla_ros.policies.images import FITS
from vla_ros.policies.options import Parts
from vla_ros.policies.processor import StandardProcessor, short_name


def report(title: str, parameters: int, processor: StandardProcessor, parts: Parts) -> dict[str, str]:
    """Title -> value, in the order in which they are printed."""
    sizes, embodiment, step_dt = processor.config, processor.embodiment, processor.step_dt
    seen = dict.fromkeys(map(processor.size_of, processor.image_names)) or {sizes.image_size: None}
    pixels = " and ".join(f"{width}x{height}" for height, width in seen)
    # Dimensions without a joint are described by the policy's own rows.
    modes = "" if any(getattr(sizes, name, "") for name in ("unserved", "spatial")) else _modes(embodiment)
    if tool := embodiment.tool:
        modes = f"{tool.space} of a tool in frame {tool.frame}, rotation as {tool.rotation}"
    if embodiment.path:
        modes = ", ".join(filter(None, ("a path of the base (x, y, yaw)", modes)))
    apart = "; the time between them is in the policy file (step_dt)" if step_dt is None else (
        f", {step_dt:g} s apart ({processor.horizon * step_dt:g} s)"
    )
    rows = {"model": title, "parameters": f"{parameters:,}", **(sizes.summary() if hasattr(sizes, "summary") else {})}
    rows |= {
        "cameras": ", ".join(
            name + (" (absent)" if camera is None else "" if camera == name else f" from {camera}")
            for name, camera in zip(map(short_name, processor.image_names), processor.robot_cameras, strict=True)
        ) or "none",
        "images": getattr(sizes, "image_title", f"{pixels} pixels, {FITS[processor.fit].title}"),
        "streams": ", ".join(f"{name} at {processor.steps()[name]}" for name in processor.streams),
        "state": f"{_of(len(embodiment.state), processor.state_width)}, normalised by {processor.state.mode}"
                 if processor.state_width else "none",
        "actions": ", ".join(filter(None, (
            _of(len(embodiment.actions), sizes.action_dim), modes, f"normalised by {processor.actions.mode}",
        ))),
        "joints": ", ".join(processor.joints),
        "horizon": f"{processor.horizon} rows{apart}",
    }
    if whose := getattr(sizes, "tokenizer_of", None):
        rows["tokenizer"] = "found" if parts.tokenizer else f"not in the folder: {whose} must be given"
    without = (f"no normalisation: {parts.no_statistics}",) if parts.no_statistics else ()
    if notes := (*parts.notes, *without, *parts.missing):
        rows["notes"] = "; ".join(notes)
    return {title: value for title, value in rows.items() if value}


def unused(rename: Rename, keys: Iterable[str]) -> str:
    """Which tensors of a file are not read, and why; for each reason the first one and their number."""
    reasons: dict[str, list[str]] = {}
    for key in keys:
        if isinstance(name := rename(key), Unused):
            reasons.setdefault(name, []).append(key)
    return "; ".join(
        f"{first}{f' and {len(others)} more' if others else ''}: {reason}"
        for reason, (first, *others) in reasons.items()
    ) or "nothing"


def _modes(embodiment: Embodiment) -> str:
    """The mode of the actions; if there are several, the most frequent one, and which joints have another."""
    joints: dict[str, list[str]] = {}
    for d in embodiment.actions:
        if d.joint is not None:
            joints.setdefault(d.mode, []).append(d.joint)
    first, *others = sorted(joints, key=lambda mode: -len(joints[mode]))
    return ", ".join([first, *(f"but {mode}: {' and '.join(joints[mode])}" for mode in others)])


def _of(size: int, limit: int) -> str:
    return f"{size} dimensions" if size == limit or not limit else f"{size} of {limit} dimensions"
