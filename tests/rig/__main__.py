"""Runs the crash rig: `python -m tests.rig [--rounds 100] [--seed N] [NAME ...]`.

python -m tests.rig redis --rounds 20          one broker, 20 rounds
python -m tests.rig --page docs/reliability.md all of them, and the page of what was seen
python -m tests.rig nats --cluster --rounds 10 three servers, of which the leader is killed
"""

from __future__ import annotations

import argparse
import secrets
import sys
from math import inf
from pathlib import Path

from tests.rig import page, targets
from tests.rig.clusters import CLUSTERS, cluster
from tests.rig.rounds import CLUSTER, ONE_SERVER
from tests.rig.run import Result, run


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    """Returns the exit code: 1 if anything was lost, out of order or wrongly given up on."""
    every = sorted({*targets.ALL, *CLUSTERS})
    parser = argparse.ArgumentParser(prog="python -m tests.rig")
    parser.add_argument("names", nargs="*", choices=[*every, []], metavar="NAME", help=", ".join(every))
    parser.add_argument("--cluster", action="store_true", help="three servers each, of which the leader is killed")
    parser.add_argument("--rounds", type=int, default=100, help="kills on each broker (100)")
    parser.add_argument("--minutes", type=float, default=inf, help="begin no round after that, on each broker")
    parser.add_argument("--seed", type=int, default=None, help="draw the same rounds again; else a new one, printed")
    parser.add_argument("--page", type=Path, default=None, help="write what was seen into this page")
    parser.add_argument("--keep", type=Path, default=None, help="keep what the processes wrote, in this folder")
    options = parser.parse_args()
    offered = CLUSTERS if options.cluster else targets.ALL
    if unknown := [name for name in options.names if name not in offered]:
        parser.error(f"{', '.join(unknown)}: not {'with' if options.cluster else 'without'} --cluster")
    weights = CLUSTER if options.cluster else ONE_SERVER
    good = True
    for name in options.names or offered:
        seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
        with cluster(name, _say) if options.cluster else targets.target(name) as target:
            keep = None if options.keep is None else options.keep / f"{name}-{seed}"
            within = options.minutes * 60
            result = run(target, seed, options.rounds, _say, weights=weights, keep=keep, within=within)
            good = good and result.good
            _say(_line(result))
            if options.page is not None:
                page.add(options.page, result, target.version)
    return 0 if good else 1


def _line(result: Result) -> str:
    count = result.count
    said = (
        f"{result.name}: seed {result.seed}, {result.rounds} rounds in {result.seconds:.0f} s: "
        f"{count.acknowledged} acknowledged, {count.unknown} unknown, "
        f"{len(count.lost)} not handled, at least {result.lost} of them lost, "
        f"{count.duplicated} duplicated, {len(count.out_of_order)} out of order, {count.overtaken} overtaken, "
        f"{result.left} left over, {len(count.wrong_letters)} wrong dead letters, "
        f"{len(count.overtried)} tried too often; "
        f"drained in {result.drained:.1f} s"
    )
    for what, found in (
        ("not handled", count.lost),
        ("out of order", count.out_of_order),
        ("wrong dead letter", count.wrong_letters),
        ("tried too often", count.overtried),
        ("red", result.red),
    ):
        said += "".join(f"\n  {what}: {one}" for one in found[:10])
    return said


if __name__ == "__main__":
    sys.exit(main())
