"""The server's options: the few that matter to a client, under their real names, and which checkpoint they choose."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from scheduler.local.standin.refusals import EngineError

CHECKPOINT = "sd_model_checkpoint"


class Settings:
    """Options by name; an unknown name is a KeyError of the server's, as a 500. Safe for threads."""

    def __init__(self, checkpoint: str) -> None:
        self._guard = threading.Lock()
        self._values: dict[str, Any] = {
            "samples_save": True,
            "samples_format": "png",
            "samples_filename_pattern": "",
            "grid_save": True,
            "return_grid": True,
            "grid_only_if_multiple": True,
            "return_mask": False,
            "return_mask_composite": False,
            "jpeg_quality": 80,
            "api_enable_requests": True,
            "api_forbid_local_requests": True,
            CHECKPOINT: checkpoint,
            "sd_checkpoint_hash": "",
            "sd_checkpoints_limit": 1,
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": 1,
            "img2img_fix_steps": False,
            "eta_noise_seed_delta": 0,
            "live_previews_enable": True,
            "show_progress_every_n_steps": 10,
        }

    def all(self) -> dict[str, Any]:
        """Return what GET options answers."""
        with self._guard:
            return dict(self._values)

    def get(self, key: str) -> Any:
        """Return one value. Raises EngineError for an unknown name."""
        with self._guard:
            if key not in self._values:
                raise EngineError("KeyError", repr(key))
            return self._values[key]

    def set(self, key: str, value: Any) -> None:
        """Change one value; it is not looked at. Raises EngineError for an unknown name."""
        with self._guard:
            if key not in self._values:
                raise EngineError("KeyError", repr(key))
            self._values[key] = value

    def stored(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return the present values of those `keys` that exist, to be put back later."""
        with self._guard:
            return {key: self._values[key] for key in keys if key in self._values}
