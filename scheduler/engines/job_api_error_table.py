"""What each refusal of the job API, and each end of its jobs that is no result, means for the task, as data.

`docs/engine-errors.md` is this table for people; a test keeps them equal. The API hides the classes of its errors, so
these rows go by words alone, and the words that name an input's fault or a transfer's come before those of the host's.
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

CASES = (
    *BEFORE_THE_ENGINE,
    Case(
        answer="404 `Not Found`, or one that the API did not write",
        verdict=Verdict.DOWN,
        why="The API is not up yet. If it says that it is well, this build lacks the path: the task goes back with "
        "back-off and fails after 5 tries over 10 minutes. So it is with a 405.",
        says="the job API has no such path (yet)",
        statuses=frozenset({404}),
        foreign=True,
    ),
    Case(
        answer="408",
        verdict=Verdict.DOWN,
        why="The request did not arrive whole.",
        says="the job API had no whole request",
        statuses=frozenset({408}),
    ),
    Case(
        answer="400, 404 with a reason, 409, 413, 415, 422",
        verdict=Verdict.REJECTED,
        why="The API read the request and will not have it; `loc` names the field.",
        says="the job API refused the request",
        statuses=frozenset({400, 404, 409, 413, 415, 422}),
    ),
    Case(
        answer="words of memory that ran out: `out of memory`, `OutOfMemoryError`, `..._ALLOC_FAILED`",
        verdict=Verdict.OUT_OF_MEMORY,
        why="The GPU was too small: the request is posted once more; the API frees memory by itself or not at all.",
        says="the engine ran out of memory",
        text=OUT_OF_MEMORY,
    ),
    Case(
        answer="`value_not_in_list`, `value_bigger_than_max`, `required_input_missing` and others of a graph's check",
        verdict=Verdict.REJECTED,
        why="The ComfyUI behind the API refused a value of the request.",
        says="the engine refused a value of the request",
        text=any_of(r"value_not_in_list", r"value_(smaller|bigger)_than", r"input_missing", r"invalid_input_type"),
    ),
    Case(
        # Before the rows of fetching, for S3 says the same words when a result cannot be written.
        answer="words of a result that could not be stored: `upload`, `PutObject`",
        verdict=Verdict.TRANSIENT,
        why="Its bucket or its way there failed; another run may go well, and `max_runs` bounds it.",
        says="the engine could not store its result",
        text=any_of(r"\bupload", r"PutObject"),
    ),
    Case(
        answer="words of a picture that is none: `cannot identify image`, `truncated`",
        verdict=Verdict.REJECTED,
        why="What lies at an address of the request is no picture.",
        says="the engine could not use an image of the request",
        text=any_of(
            r"cannot identify image", r"UnidentifiedImage", r"not an image", r"(invalid|corrupt)\w* image", r"truncated"
        ),
    ),
    Case(
        answer="words of a picture that could not be had: `download`, `fetch`, `NoSuchKey`, `GetObject`",
        verdict=Verdict.TRY,
        why="It may be there later, or not; the task fails after 5 tries over 10 minutes.",
        says="the engine could not fetch an image of the request",
        text=any_of(r"\bdownload", r"\bfetch", r"NoSuchKey", r"NoSuchBucket", r"HeadObject", r"GetObject"),
    ),
    Case(
        answer="words of a full disk",
        verdict=Verdict.FATAL,
        why="No other task could be saved there either.",
        says="the engine's disk is full",
        text=FULL_DISK,
    ),
    Case(
        answer="words of a model file that is missing or broken",
        verdict=Verdict.FATAL,
        why="A model file of this host is missing or broken.",
        says="the engine could not load a model file",
        text=BROKEN_MODEL_FILE,
    ),
    Case(
        answer="words of CUDA, cuDNN, cuBLAS, HIP, NVIDIA, a driver, `device-side assert` or `no kernel image`",
        verdict=Verdict.FATAL,
        why="The GPU, its driver or the installation is broken; other tasks would fail here too.",
        says="the engine's GPU or driver failed",
        text=BROKEN_GPU,
    ),
    Case(
        answer="words of shapes and sizes (`shapes cannot be multiplied`, `Expected 3D`)",
        verdict=Verdict.REJECTED,
        why="What was asked does not fit together: the same everywhere.",
        says="the engine could not fit together what was asked",
        text=MISFIT,
    ),
    Case(
        answer="`validation`, `unsupported`",
        verdict=Verdict.REJECTED,
        why="The engine's own check of the request.",
        says="the engine refused the request",
        text=any_of(r"validation", r"unsupported"),
    ),
    Case(
        answer="any other answer or words, or none",
        verdict=Verdict.TRANSIENT,
        why="Unknown: another run may go well, and `max_runs` bounds it.",
        says="the engine failed",
    ),
)
"""In order: the first row that fits decides. Rows of words are for failed jobs, and for answers of other statuses."""
