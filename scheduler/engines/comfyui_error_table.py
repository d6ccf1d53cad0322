"""What each bad answer and each bad end of a ComfyUI engine means for the task, as data.

`docs/engine-errors.md` is these tables for people; a test keeps them equal.
"""

from __future__ import annotations

from scheduler.engines.error_cases import (
    BEFORE_THE_ENGINE,
    BROKEN_GPU,
    BROKEN_MODEL_FILE,
    FULL_DISK,
    MISFIT,
    OUT_OF_MEMORY,
    Case,
    Verdict,
    any_of,
)

PROMPT_CASES = (
    *BEFORE_THE_ENGINE,
    Case(
        answer="404",
        verdict=Verdict.DOWN,
        why="Not a ComfyUI, or not up yet.",
        says="the engine has no such route (yet)",
        statuses=frozenset({404}),
    ),
    Case(
        answer="400 about a picture that we had uploaded",
        verdict=Verdict.FREE,
        why="The engine was replaced between upload and prompt, and its input folder with it.",
        says="the engine has lost a picture that was uploaded to it",
        statuses=frozenset({400}),
        text=any_of(r"^uploaded file is gone"),
    ),
    Case(
        answer="400, 413",
        verdict=Verdict.REJECTED,
        why="The engine's own validation; the first of `node_errors` names node and input. Unknown node classes and "
        "unknown checkpoints come so too.",
        says="the engine refused the graph",
        statuses=frozenset({400, 413}),
    ),
    Case(
        answer="any other answer, such as 500 `Server got itself in trouble`",
        verdict=Verdict.TRANSIENT,
        why="A body that is no graph gets this, but such are refused before; what is left is a fault of the engine or "
        "of a custom node. Another try may go well, and `max_runs` bounds it.",
        says="the engine failed to take the graph",
    ),
)
"""Answers to POST /prompt other than 200, in order: the first row that fits decides."""

RUN_CASES = (
    Case(
        answer="OutOfMemoryError, or `out of memory` in the text of any error",
        verdict=Verdict.OUT_OF_MEMORY,
        why="The GPU was too small for this batch: its memory is freed and the graph run once more, the batch split "
        "into single pictures where that can be done.",
        says="the engine ran out of memory",
        text=OUT_OF_MEMORY,
    ),
    Case(
        answer="OutOfMemoryError or MemoryError without words",
        verdict=Verdict.OUT_OF_MEMORY,
        why="The same, by its class alone.",
        says="the engine ran out of memory",
        errors=frozenset({"OutOfMemoryError", "MemoryError"}),
    ),
    Case(
        answer="UnidentifiedImageError, DecompressionBombError",
        verdict=Verdict.REJECTED,
        why="A file that a node was to load is no picture.",
        says="a node could not read a picture",
        errors=frozenset({"UnidentifiedImageError", "DecompressionBombError"}),
    ),
    Case(
        answer="OSError `No space left on device`",
        verdict=Verdict.FATAL,
        why="The host's disk is full; no other task could be saved here either.",
        says="the engine's disk is full",
        text=FULL_DISK,
    ),
    Case(
        answer="SafetensorError, UnpicklingError",
        verdict=Verdict.FATAL,
        why="A model file of this host is broken.",
        says="the engine could not load a model file",
        errors=frozenset({"SafetensorError", "UnpicklingError"}),
    ),
    Case(
        answer="FileNotFoundError of a model file, or a broken archive",
        verdict=Verdict.FATAL,
        why="The same, by its text.",
        says="the engine could not load a model file",
        text=BROKEN_MODEL_FILE,
    ),
    Case(
        answer="RuntimeError, AssertionError or AcceleratorError that speaks of CUDA, cuDNN, cuBLAS, HIP, NVIDIA, a "
        "driver, `device-side assert` or `no kernel image`",
        verdict=Verdict.FATAL,
        why="The GPU, its driver or the installation is broken; other tasks would fail here too.",
        says="the engine's GPU or driver failed",
        errors=frozenset({"RuntimeError", "AssertionError", "AcceleratorError", "DeferredCudaCallError"}),
        text=BROKEN_GPU,
    ),
    Case(
        answer="RuntimeError about shapes and sizes, `... input is invalid: None`, `Could not detect model type`",
        verdict=Verdict.REJECTED,
        why="What the graph connects does not go together (sizes, a LoRA or VAE of another family, a file that is no "
        "checkpoint): the same everywhere.",
        says="a node could not fit together what it was given",
        errors=frozenset({"RuntimeError"}),
        text=any_of(MISFIT.pattern, r"is invalid: None", r"Could not detect model type"),
    ),
    Case(
        answer="AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError, "
        "ZeroDivisionError",
        verdict=Verdict.REJECTED,
        why="A node's code fell over a value of the graph; it would again, everywhere.",
        says="a node could not work with what it was given",
        errors=frozenset(
            {
                *("AssertionError", "AttributeError", "IndexError", "KeyError", "NotImplementedError"),
                *("TypeError", "ValueError", "ZeroDivisionError"),
            }
        ),
    ),
    Case(
        answer="any other error of a node",
        verdict=Verdict.TRANSIENT,
        why="Unknown: another run may go well, and `max_runs` bounds it.",
        says="a node failed",
    ),
)
"""Ways in which a run ends with `execution_error`, in order: the first row that fits decides."""
