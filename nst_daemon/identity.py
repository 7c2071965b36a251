"""What makes two results the same picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields

from nst_daemon.engine.settings import RenderSettings
from nst_daemon.jobs import PICTURE_ROLES


def picture_identity(
    inputs: Sequence[tuple[str, str]],
    settings: RenderSettings,
    network: str,
    weights_sha256: str,
) -> str:
    """The identity of a result: equal for two jobs that paint the same picture.

    Args:
        inputs: Role and SHA-256 of each input, in the order of the job. Settings files do not count: what they say is
            in `settings`.
        settings: The resolved settings.
        network: The name of the network.
        weights_sha256: The digest of the weights' file.

    Returns:
        64 hex digits.
    """
    pictures = [[role, digest] for role, digest in inputs if role in PICTURE_ROLES]
    # Not `asdict`, whose deep copy takes ten times as long.
    chosen = {field.name: getattr(settings, field.name) for field in fields(settings)}
    whole = [pictures, chosen, network, weights_sha256]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
