"""Scenes whose objectives are found once, so that every optimiser minimises the same one.

With `style_loss: neighbours` a scale finds its targets for the picture with which it begins, which is another one for
each optimiser. Here they are found for the content.
"""

from __future__ import annotations

from dataclasses import replace

from nst_daemon.engine.scene import Scale, Scene
from nst_daemon.engine.vgg import VGG


def fixed(scene: Scene, network: VGG) -> Scene:
    """The scene with the last objective of each size, and its targets for the content of that size.

    Other style losses have one objective for each size, whose targets do not depend on a picture: they stay.
    """
    last = {scale.size: scale for scale in scene.scales}
    return replace(scene, scales=tuple(_found(scale, network) for scale in last.values()))


def _found(scale: Scale, network: VGG) -> Scale:
    return replace(scale, objective=scale.objective.begin(network, scale.content))
