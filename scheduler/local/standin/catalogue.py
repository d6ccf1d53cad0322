"""The samplers, schedules, upscalers and scripts that the real server lists, and how it takes names for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DEFAULT_SAMPLER = "DPM++ 2M"
AUTOMATIC = "Automatic"
ALWAYS_ON_SCRIPTS = frozenset(
    {"comments", "extra options", "hypertile", "refiner", "sampler", "seed", "soft inpainting"}
)
"""Accepted in `alwayson_scripts`, without effect here."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """One sampler; `schedule` is the one that Automatic means for it."""

    name: str
    alias: str
    schedule: str | None = None

    def listing(self) -> dict[str, Any]:
        """Return its entry in GET samplers."""
        return {
            "name": self.name,
            "aliases": [self.alias],
            "options": {"scheduler": self.schedule} if self.schedule else {},
        }


@dataclass(frozen=True, slots=True)
class Schedule:
    """One noise schedule."""

    name: str
    label: str
    alias: str | None = None
    rho: float = -1.0
    inner: bool = False

    def listing(self) -> dict[str, Any]:
        """Return its entry in GET schedulers."""
        return {
            "name": self.name,
            "label": self.label,
            "aliases": [self.alias] if self.alias else None,
            "default_rho": self.rho,
            "need_inner_model": self.inner,
        }


SAMPLERS = (
    Sampler(DEFAULT_SAMPLER, "k_dpmpp_2m", "karras"),
    Sampler("DPM++ SDE", "k_dpmpp_sde", "karras"),
    Sampler("DPM++ 2M SDE", "k_dpmpp_2m_sde", "exponential"),
    Sampler("DPM++ 2M SDE Heun", "k_dpmpp_2m_sde_heun", "exponential"),
    Sampler("DPM++ 2S a", "k_dpmpp_2s_a", "karras"),
    Sampler("DPM++ 3M SDE", "k_dpmpp_3m_sde", "exponential"),
    Sampler("Euler a", "k_euler_a"),
    Sampler("Euler", "k_euler"),
    Sampler("LMS", "k_lms"),
    Sampler("Heun", "k_heun"),
    Sampler("DPM2", "k_dpm_2", "karras"),
    Sampler("DPM2 a", "k_dpm_2_a", "karras"),
    Sampler("DPM fast", "k_dpm_fast"),
    Sampler("DPM adaptive", "k_dpm_ad"),
    Sampler("Restart", "restart", "karras"),
    Sampler("DDIM", "ddim"),
    Sampler("DDIM CFG++", "ddim_cfgpp"),
    Sampler("PLMS", "plms"),
    Sampler("UniPC", "unipc"),
    Sampler("LCM", "k_lcm"),
)

SCHEDULES = (
    Schedule("automatic", AUTOMATIC),
    Schedule("uniform", "Uniform", inner=True),
    Schedule("karras", "Karras", rho=7.0),
    Schedule("exponential", "Exponential"),
    Schedule("polyexponential", "Polyexponential", rho=1.0),
    Schedule("sgm_uniform", "SGM Uniform", "SGMUniform", inner=True),
    Schedule("kl_optimal", "KL Optimal"),
    Schedule("align_your_steps", "Align Your Steps"),
    Schedule("simple", "Simple", inner=True),
    Schedule("normal", "Normal", inner=True),
    Schedule("ddim", "DDIM", inner=True),
    Schedule("beta", "Beta", inner=True),
)

UPSCALERS: tuple[dict[str, Any], ...] = tuple(
    {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}
    for name in ("None", "Lanczos", "Nearest")
)


def sampling(sampler: str, scheduler: str | None) -> tuple[str, str]:
    """Return the sampler and the schedule's label that a request really gets; nothing is ever refused.

    Old combined names ("DPM++ 2M Karras") are taken apart; an unknown sampler silently becomes the default one,
    an unknown scheduler Automatic, which means each sampler's own.
    """
    found = next((entry for entry in SCHEDULES if scheduler in {entry.name, entry.label}), SCHEDULES[0])
    for schedule in SCHEDULES:
        for name in (schedule.label, schedule.name, schedule.alias):
            if name and sampler.endswith(f" {name}"):
                found, sampler = schedule, sampler.removesuffix(f" {name}")
                break
    used = next((entry for entry in SAMPLERS if entry.name == sampler), SAMPLERS[0])
    if found.label == AUTOMATIC and used.schedule is not None:
        found = next(entry for entry in SCHEDULES if entry.name == used.schedule)
    return used.name, found.label
