"""How an image processor comes to the size of a graph, by its own rules."""

from __future__ import annotations

from typing import Any

Size = tuple[int, int]


def told_sizes(plain: Any, height: int, width: int) -> dict[str, Any]:
    """Returns the attributes to change so that a processor makes images of this size; none where it does already.

    Args:
        plain: An image processor that does not keep the proportions of its images.
        height: Pixels.
        width: Pixels.
    """
    exact = {"height": height, "width": width}
    size = size_of(plain, "size")
    if getattr(plain, "do_center_crop", False) and (crop := size_of(plain, "crop_size")):
        told = {"size": _before_crop(size, crop, height, width), "crop_size": exact}
    elif crops_by_itself(plain):
        told = {"size": {"shortest_edge": max(height, width)}}
    elif size:
        told = {"size": exact}
    else:
        told = {}
    return {name: value for name, value in told.items() if value != size_of(plain, name)}


def keeps_proportions(plain: Any) -> bool:
    """Whether a processor resizes images in their own proportions, so that they differ in size."""
    size = size_of(plain, "size")
    if getattr(plain, "do_resize", True) is False:
        return False
    if getattr(plain, "keep_aspect_ratio", False) or not size:
        return True
    if getattr(plain, "do_center_crop", False) or crops_by_itself(plain):
        return False
    return not size.keys() >= {"height", "width"}


def size_of(plain: Any, name: str) -> dict[str, int]:
    """Returns a size that a processor holds, as a dict of the edges that it sets; empty where it has none."""
    size = getattr(plain, name, None)
    if isinstance(size, int):
        return {"shortest_edge": size} if name == "size" else {"height": size, "width": size}
    return {edge: int(value) for edge, value in dict(size).items() if value} if size else {}


def smaller(content: Size, canvas: Size) -> Size:
    """Returns the largest size with the proportions of `content` that `canvas` holds."""
    share = min(canvas[0] / content[0], canvas[1] / content[1])
    return max(int(content[0] * share), 1), max(int(content[1] * share), 1)


def crops_by_itself(plain: Any) -> bool:
    """Whether a processor has ConvNeXt's rule: below 384 pixels it cuts a square out of a larger image."""
    return getattr(plain, "crop_pct", None) is not None


def _before_crop(size: dict[str, int], crop: dict[str, int], height: int, width: int) -> dict[str, int]:
    square = crop.get("shortest_edge", 0)  # BridgeTower's word for the edge of a square
    crop_height, crop_width = crop.get("height", square), crop.get("width", square)
    if (crop_height, crop_width) == (height, width):
        return size
    if edge := size.get("shortest_edge"):
        return {"shortest_edge": round(edge * max(height / crop_height, width / crop_width))}
    return {
        "height": round(size["height"] * height / crop_height),
        "width": round(size["width"] * width / crop_width),
    }
