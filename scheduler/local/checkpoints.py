"""The checkpoints of a stand-in that is not given others."""

CHECKPOINTS = ("standin-dawn.safetensors", "standin-dusk.safetensors")
