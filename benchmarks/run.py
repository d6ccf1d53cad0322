"""Measure a queue consumer: `python -m benchmarks.run`."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmarks.consumer import DAEMON, REFERENCE, Consumer
from benchmarks.figures import Figures, figures, has_failed, merge
from benchmarks.prices import USD_PER_MILLION
from benchmarks.proxy import LATENCY_MS
from benchmarks.runner import ConsumerUseless, run
from benchmarks.scenarios import SCENARIOS
from benchmarks.tables import report
from benchmarks.tasks import FORMATS
from benchmarks.world import ROOT

EXAMPLES = """\
examples:
  python -m benchmarks.run                                    the daemon, every scenario (about 6 minutes)
  python -m benchmarks.run --scenario smoke                   does everything work (10 seconds)
  python -m benchmarks.run --scenario duty-250ms --consumer daemon --consumer reference
                                                              side by side, in turn, run by run
  python -m benchmarks.run --format eks --format predecessor  two message formats, in turn
  python -m benchmarks.run --format predecessor --consumer 'mine=/opt/mine/bin/consume --queue {queue_url}'

A consumer's command may hold {queue_url}, {table}, {bucket}, {region}, {endpoint_url}, {engine_url}, {python} and
{conf} (the scheduler's conf.ini, written for each run); its environment has the same as BENCH_QUEUE_URL and so on,
with AWS credentials and AWS_ENDPOINT_URL. Exit code: 0, or 1 when a task was lost or done twice, or 2 for wrong use.
"""
KNOWN = {consumer.name: consumer for consumer in (DAEMON, REFERENCE)}


def parse_consumer(text: str) -> Consumer:
    """Return the consumer for `daemon`, `reference`, `NAME=COMMAND` or a command line."""
    if text in KNOWN:
        return KNOWN[text]
    named = re.fullmatch(r"([a-z][a-z0-9-]*)=(.+)", text, re.DOTALL)
    return Consumer(name=named[1], command=named[2]) if named else Consumer(name="consumer", command=text)


def parse_latency(text: str) -> tuple[str, float]:
    """Return the name and milliseconds of `sqs=12`."""
    name, _, value = text.partition("=")
    if name not in LATENCY_MS:
        raise argparse.ArgumentTypeError(f"{name!r} must be one of {', '.join(LATENCY_MS)}")
    return name, float(value)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    about = "Measure a queue consumer against emulated AWS with latency and an engine of known speed."
    scenarios = "; ".join(f"{scenario.name}: {scenario.about}" for scenario in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=about,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, metavar="NAME", help=f"may be repeated; {scenarios}"
    )
    parser.add_argument(
        "--format", action="append", choices=FORMATS, help="message format (default: own); may be repeated"
    )
    parser.add_argument("--repeats", type=int, help="runs of each scenario, of which the median is shown")
    parser.add_argument(
        "--consumer",
        action="append",
        type=parse_consumer,
        help="daemon (default), reference, or a command, which may be named NAME=COMMAND; may be repeated",
    )
    parser.add_argument(
        "--latency",
        action="append",
        type=parse_latency,
        metavar="NAME=MS",
        help=f"change one of {LATENCY_MS}; may be repeated",
    )
    parser.add_argument(
        "--emulator", choices=("moto", "ministack"), default="moto", help="what stands for AWS (default: moto)"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each run instead of tables")
    parser.add_argument("--out", type=Path, help="where records, logs and tables go (default: benchmarks/runs/TIME)")
    return parser


def assumptions(latency_ms: dict[str, float], formats: Sequence[str], emulator: str) -> str:
    """Return what the tables rest on, in words."""
    latency = ", ".join(f"{name} {value:g} ms" for name, value in latency_ms.items())
    prices = ", ".join(f"{name} ${price:g}" for name, price in USD_PER_MILLION.items())
    return (
        f"Message format: {', '.join(formats)}. AWS: {emulator}. Assumed AWS latency: {latency}. List prices per million: {prices}; requests "
        f"only.\n`load` is the machine's load average before a run, on {os.cpu_count()} cores that the consumer shares "
        "with the emulation;\n`late` the share of AWS calls that the emulator answered later than the assumed latency."
    )


def measure(
    consumers: Sequence[Consumer],
    names: Sequence[str],
    *,
    formats: Sequence[str],
    repeats: int | None,
    latency_ms: dict[str, float],
    emulator: str,
    out: Path,
    as_json: bool,
) -> list[Figures]:
    """Run all consumers in turn, repeat by repeat, so that a noisy minute hits them alike; return every run.

    Where there are several formats, a consumer is shown under a name for each.
    """
    results: list[Figures] = []
    with (out / "runs.jsonl").open("a") as records:
        for scenario in (SCENARIOS[name] for name in names):
            for repeat in range(repeats or scenario.repeats):
                for consumer, format_name in product(consumers, formats):
                    name = consumer.name if len(formats) == 1 else f"{consumer.name}-{format_name}"
                    label = f"{scenario.name}.{name}.{repeat}"
                    print(f"{label} ...", file=sys.stderr, flush=True)
                    seen = run(
                        consumer, scenario, format_name, latency_ms=latency_ms, emulator=emulator, out=out, label=label
                    )
                    result = {"consumer": name, "format": format_name, "repeat": repeat} | figures(seen)
                    line = json.dumps(result)
                    print(line, file=records, flush=True)
                    if as_json:
                        print(line, flush=True)
                    results.append(result)
    return results


def merged(results: Sequence[Figures]) -> list[Figures]:
    """Return one row for each scenario and consumer, in the order of their first runs."""
    groups: dict[tuple[str, str], list[Figures]] = {}
    for result in results:
        groups.setdefault((result["scenario"], result["consumer"]), []).append(result)
    return [merge(runs) for runs in groups.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as told; return the exit code."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    consumers: list[Consumer] = given.consumer or [DAEMON]
    if len({consumer.name for consumer in consumers}) < len(consumers):
        parser.error("two consumers have the same name; name them NAME=COMMAND")
    if given.repeats is not None and given.repeats < 1:
        parser.error("--repeats must be at least 1")
    out: Path = given.out or ROOT / "benchmarks" / "runs" / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    latency_ms = LATENCY_MS | dict(given.latency or ())
    formats: list[str] = list(dict.fromkeys(given.format or ["own"]))
    try:
        results = measure(
            consumers,
            given.scenario or [name for name in SCENARIOS if name != "smoke"],
            formats=formats,
            repeats=given.repeats,
            latency_ms=latency_ms,
            emulator=given.emulator,
            out=out,
            as_json=given.json,
        )
    except ConsumerUseless as useless:
        print(f"{useless}; its output is in {out}", file=sys.stderr)
        return 1
    text = f"{report(merged(results))}\n\n{assumptions(latency_ms, formats, given.emulator)}"
    (out / "tables.md").write_text(text + "\n")
    if not given.json:
        print(f"\n{text}")
    failed = [f"{r['scenario']} ({r['consumer']}, run {r['repeat']})" for r in results if has_failed(r)]
    if failed:
        print(f"\nSomething was lost or done twice in: {', '.join(failed)}", file=sys.stderr)
    print(f"Records and logs: {out}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that the processes are ended first
    sys.exit(main())
