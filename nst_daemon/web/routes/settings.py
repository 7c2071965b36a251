"""Settings, presets and limits, so that a form knows what will be accepted."""

from __future__ import annotations

from fastapi import APIRouter

from nst_daemon.config_report import plain, preset_values, setting_keys
from nst_daemon.engine.presets import PRESETS
from nst_daemon.intake.expansion import MAX_PICTURES
from nst_daemon.job_settings import resolve_job
from nst_daemon.pictures.formats import suffixes
from nst_daemon.pictures.output_formats import OUTPUT_KEYS
from nst_daemon.web.context import Shared
from nst_daemon.web.models import LimitsInfo, PresetInfo, SettingInfo, SettingsInfo

router = APIRouter(tags=["settings"])

#: The settings that forms show first.
MAIN = ("size", "preset", "content_weight", "style_scale", "keep_colors", "format", "seed")


@router.get("/settings")
def settings(shared: Shared) -> SettingsInfo:
    """The settings of jobs with their defaults, and the presets."""
    render, outputs = resolve_job(shared.config, {})
    found = [
        SettingInfo(
            name=name,
            kind=key.kind,
            default=plain(getattr(outputs if name in OUTPUT_KEYS else render, name)),
            allowed=key.allowed,
            help=key.help,
            choices=list(key.choices),
            minimum=key.minimum,
            maximum=key.maximum,
            main=name in MAIN,
        )
        for name, key in setting_keys().items()
    ]
    found.sort(key=lambda setting: MAIN.index(setting.name) if setting.main else len(MAIN))
    presets = [
        PresetInfo(
            name=name,
            summary=preset.summary,
            source=preset.source,
            values={key: plain(value) for key, value in preset_values(name).items()},
        )
        for name, preset in PRESETS.items()
    ]
    return SettingsInfo(settings=found, presets=presets)


@router.get("/limits")
def limits(shared: Shared) -> LimitsInfo:
    """What uploads and submissions must not exceed."""
    configured = shared.options.limits
    return LimitsInfo(
        max_bytes=configured.max_bytes,
        max_pixels=configured.max_pixels,
        max_side=configured.max_side,
        suffixes=sorted(suffixes(configured.formats)),
        max_batch_pictures=MAX_PICTURES,
        default_style=shared.config.default_style,
    )
