"""What each answer of an A1111 engine that is not a picture means for the task, as data.

`docs/engine-errors.md` is this table for people; a test keeps them equal.
"""

from __future__ import annotations

from scheduler.engines.error_cases import (
    BEFORE_THE_ENGINE,
    BROKEN_GPU,
    BROKEN_MODEL_FILE,
    MISFIT,
    OUT_OF_MEMORY,
    Case,
    Verdict,
    any_of,
)

_500 = frozenset({500})

CASES = (
    Case(
        answer="401",
        verdict=Verdict.DOWN,
        why="The engine asks for a password and ours is wrong: a person must mend `api_auth`; no task is to blame.",
        says="the engine refused the credentials: api_auth is wrong or missing",
        statuses=frozenset({401}),
    ),
    *BEFORE_THE_ENGINE,
    Case(
        answer="404 `Not Found`, or one that the API did not write",
        verdict=Verdict.DOWN,
        why="The API is not up yet. If the engine is ready all the same, this build lacks the route: the task goes "
        "back with back-off and fails after 5 tries over 10 minutes.",
        says="the engine has no such route (yet)",
        statuses=frozenset({404}),
        foreign=True,
    ),
    Case(
        answer="422",
        verdict=Verdict.REJECTED,
        why="The engine's own validation; `loc` names the field. Unknown scripts come so too.",
        says="the engine refused the request",
        statuses=frozenset({422}),
    ),
    Case(
        answer="400, 404 with a reason, 413",
        verdict=Verdict.REJECTED,
        why="The engine read the request and will not have it (`Init image not found`, `Sampler not found`).",
        says="the engine refused the request",
        statuses=frozenset({400, 404, 413}),
    ),
    Case(
        answer="500 OutOfMemoryError, MemoryError, or `out of memory` in the text of any error",
        verdict=Verdict.OUT_OF_MEMORY,
        why="The GPU was too small for this batch: its memory is freed and the task tried once more at batch size 1.",
        says="the engine ran out of memory",
        statuses=_500,
        text=OUT_OF_MEMORY,
    ),
    Case(
        answer="500 OutOfMemoryError or MemoryError without words",
        verdict=Verdict.OUT_OF_MEMORY,
        why="The same, by its class alone.",
        says="the engine ran out of memory",
        statuses=_500,
        errors=frozenset({"OutOfMemoryError", "MemoryError"}),
    ),
    Case(
        answer="500 HTTPException about an image: `Invalid encoded image`, `Invalid image url`, `Requests not allowed`, "
        "`Request to local resource not allowed`",
        verdict=Verdict.REJECTED,
        why="The client's fault behind a 500; trying again is useless.",
        says="the engine could not use an image of the request",
        statuses=_500,
        text=any_of(
            r"^Invalid encoded image", r"^Invalid image url", r"^Requests not allowed", r"local resource not allowed"
        ),
    ),
    Case(
        answer="500 `Could not find checkpoint with name`, `model ... not found`",
        verdict=Verdict.REJECTED,
        why="A refiner, a hires checkpoint or an option names a model that the engine has not.",
        says="the engine does not have that checkpoint",
        statuses=_500,
        text=any_of(r"^Could not find checkpoint with name", r"^model '.*' not found$"),
    ),
    Case(
        answer="500 SafetensorError, UnpicklingError",
        verdict=Verdict.FATAL,
        why="A model file of this host is missing or broken; a failed load can leave the engine unable to render.",
        says="the engine could not load a model file",
        statuses=_500,
        errors=frozenset({"SafetensorError", "UnpicklingError"}),
    ),
    Case(
        answer="500 FileNotFoundError of a model file, `model failed to load`, or a broken archive",
        verdict=Verdict.FATAL,
        why="The same, by its text.",
        says="the engine could not load a model file",
        statuses=_500,
        text=BROKEN_MODEL_FILE,
    ),
    Case(
        answer="500 RuntimeError, AssertionError or AcceleratorError that speaks of CUDA, cuDNN, cuBLAS, HIP, NVIDIA, "
        "a driver, `device-side assert` or `no kernel image`",
        verdict=Verdict.FATAL,
        why="The GPU, its driver or the installation is broken; other tasks would fail here too.",
        says="the engine's GPU or driver failed",
        statuses=_500,
        errors=frozenset({"RuntimeError", "AssertionError", "AcceleratorError", "DeferredCudaCallError"}),
        text=BROKEN_GPU,
    ),
    Case(
        answer="500 NansException",
        verdict=Verdict.FATAL,
        why="All pixels came out as NaN. It may be this seed on this model in half precision, or a GPU or a model in "
        "memory gone wrong, and the words are the same. Rejected would let one sick host fail a whole queue; as "
        "Fatal a task fails after `max_runs`, and three in a row are judged by the golden task.",
        says="the engine computed nothing but NaN",
        statuses=_500,
        errors=frozenset({"NansException"}),
    ),
    Case(
        answer="500 AttributeError `'NoneType' object has no attribute ...` of a model",
        verdict=Verdict.FATAL,
        why="No model is loaded: what an engine says to every request after a load that failed.",
        says="the engine has no model loaded",
        statuses=_500,
        errors=frozenset({"AttributeError"}),
        text=any_of(
            r"'NoneType' object has no attribute '(?!(strip|split|lower|upper|replace|startswith|endswith|encode)')"
        ),
    ),
    Case(
        answer="500 KeyError",
        verdict=Verdict.REJECTED,
        why="An unknown key in `override_settings`.",
        says="the engine does not know a setting of the request",
        statuses=_500,
        errors=frozenset({"KeyError"}),
    ),
    Case(
        answer="500 AssertionError, AttributeError, IndexError, TypeError, ValueError, ZeroDivisionError",
        verdict=Verdict.REJECTED,
        why="The engine's code fell over a value of the request; it would again, everywhere.",
        says="the engine could not work with a value of the request",
        statuses=_500,
        errors=frozenset(
            {"AssertionError", "AttributeError", "IndexError", "TypeError", "ValueError", "ZeroDivisionError"}
        ),
    ),
    Case(
        answer="500 RuntimeError about shapes and sizes (`Expected 3D`, `shapes cannot be multiplied`, "
        "`bad number of images passed`)",
        verdict=Verdict.REJECTED,
        why="What was asked does not fit together (sizes, images, a LoRA of another family): the same everywhere.",
        says="the engine could not fit together what was asked",
        statuses=_500,
        errors=frozenset({"RuntimeError"}),
        text=MISFIT,
    ),
    Case(
        answer="500 `json.exception` (stable-diffusion.cpp)",
        verdict=Verdict.REJECTED,
        why="That build's way of saying 422.",
        says="the engine refused the request",
        statuses=_500,
        text=any_of(r"json\.exception\."),
    ),
    Case(
        answer="any other answer",
        verdict=Verdict.TRANSIENT,
        why="Unknown: another run may go well, and `max_runs` bounds it.",
        says="the engine failed",
    ),
)
"""In order: the first row that fits decides."""
