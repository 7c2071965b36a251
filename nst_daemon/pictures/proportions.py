"""Whether a mask has the proportions of its picture. Without numpy: the page checks submissions with it."""

from __future__ import annotations

from nst_daemon.errors import PictureError


def check_proportions(
    mask: tuple[int, int], picture: tuple[int, int], label: str, whose: str
) -> None:
    """Raise PictureError for other proportions, within the error of rounding to whole pixels.

    Args:
        mask: Its height and width in pixels.
        picture: Those of the picture that it is laid over.
        label: Whose mask it is.
        whose: Which picture it is laid over.
    """
    (H, W), (h, w) = mask, picture
    if abs(W * h / (H * w) - 1) > 1 / min(H, W, h, w):
        raise PictureError(
            f"the mask of {label} is {W} × {H} pixels, but {whose} is {w} × {h}",
            remedy="give the mask the proportions of its picture: export it at the same size",
        )
