"""What `vla-ros info` says about a policy."""

from collections.abc import Iterable

from vla_ros.policies.formats.weights import Rename, Unused
from vla_ros.policies.options import Parts
from vla_ros.policies.processor import StandardProcessor, short_name

FITS = {
    "exact": "scaled whole", "pad": "scaled and padded", "pad_top_left": "scaled, padded at top and left",
    "squash": "scaled to this aspect", "letterbox": "padded to a square and scaled", "cover": "scaled, centre kept",
    "centre": "scaled to this aspect, central 90 % of the area",
}


def report(title: str, parameters: int, processor: StandardProcessor, parts: Parts) -> dict[str, str]:
    """Title -> value, in the order in which they are printed."""
    sizes, embodiment, step_dt = processor.config, processor.embodiment, processor.step_dt
    height, width = sizes.image_size
    # Of what is no joint the policy's own rows say what it is.
    modes = set() if getattr(sizes, "not_served", "") else {d.mode for d in embodiment.actions if d.joint is not None}
    apart = "; how far apart, the policy file says (step_dt)" if step_dt is None else (
        f", {step_dt:g} s apart ({processor.horizon * step_dt:g} s)"
    )
    rows = {"model": title, "parameters": f"{parameters:,}", **(sizes.summary() if hasattr(sizes, "summary") else {})}
    rows |= {
        "cameras": ", ".join(
            name + (" (absent)" if camera is None else "" if camera == name else f" from {camera}")
            for name, camera in zip(map(short_name, processor.image_names), processor.robot_cameras, strict=True)
        ) or "none",
        "images": f"{width}x{height} pixels, {FITS[processor.fit]}",
        "streams": ", ".join(f"{name} at {processor.steps()[name]}" for name in processor.streams),
        "state": f"{_of(len(embodiment.state), processor.state_width)}, normalised by {processor.state.mode}"
                 if processor.state_width else "none",
        "actions": ", ".join(filter(None, (
            _of(len(embodiment.actions), sizes.action_dim), " and ".join(sorted(modes)),
            f"normalised by {processor.actions.mode}",
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
    """Which tensors of a file are not read, and why; those with the same reason as the first and their number."""
    reasons: dict[str, list[str]] = {}
    for key in keys:
        if isinstance(name := rename(key), Unused):
            reasons.setdefault(name, []).append(key)
    return "; ".join(
        f"{first}{f' and {len(others)} more' if others else ''}: {reason}"
        for reason, (first, *others) in reasons.items()
    ) or "nothing"


def _of(size: int, limit: int) -> str:
    return f"{size} dimensions" if size == limit or not limit else f"{size} of {limit} dimensions"
