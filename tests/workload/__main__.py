"""python3 -m tests.workload --seed 7 [--seeds 1-50] [--steps N] [--keep] [--calm] [--report FILE]"""
import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback

from .run import Run, Servers


def numbers(text):
    found = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found


def one(servers, seed, args):
    """None, or what went wrong."""
    run = Run(servers, seed, args.steps, quiet=args.quiet, calm=args.calm)
    problem = None
    try:
        run.everything()
    except Exception:       # pylint: disable=broad-except
        problem = traceback.format_exc()
    if problem and args.keep:
        print(problem)
        print(f"kept: source {run.servers.source.dsn(run.pair.id)}, target {run.servers.target.dsn(run.pair.id)}, files {run.folder}")
        input("Enter ends it ")
    try:
        run.end()
    except Exception:       # pylint: disable=broad-except
        problem = problem or traceback.format_exc()
    if problem:
        path = os.path.join(args.out, f"seed-{seed}.sql")
        os.makedirs(args.out, exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(run.script.text() + "\n-- " + problem.replace("\n", "\n-- "))
        problem += f"script: {path}\n"
    shutil.rmtree(run.folder, ignore_errors=True)
    return problem


def main():
    parser = argparse.ArgumentParser(prog="python3 -m tests.workload", description="Random workloads, reproducible by their seed.")
    parser.add_argument("--seed", "--seeds", default="1", help="7, 1-50, 3,5,9")
    parser.add_argument("--steps", type=int, help="transactions of each writer")
    parser.add_argument("--keep", action="store_true", help="after a failure wait, with the servers running")
    parser.add_argument("--calm", action="store_true", help="nobody is killed")
    parser.add_argument("--quiet", action="store_true", help="one line a seed")
    parser.add_argument("--report", help="a file that gets a line of JSON for each seed")
    parser.add_argument("--out", default="build/workload", help="where scripts of failed seeds are written")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # so that servers and folders go
    bad = []
    folder = tempfile.mkdtemp(prefix="keybridge-workload.")
    os.chmod(folder, 0o755)
    try:
        with Servers(folder) as servers:
            for seed in numbers(args.seed):
                start = time.monotonic()
                problem = one(servers, seed, args)
                print(f"seed {seed}: {'FAILED' if problem else 'equal'} after {time.monotonic() - start:.1f} s", flush=True)
                if problem:
                    bad.append(seed)
                    print(problem, flush=True)
                if args.report:
                    with open(args.report, "a", encoding="utf-8") as f:
                        f.write(json.dumps({"seed": seed, "problem": problem, "seconds": round(time.monotonic() - start, 1)}) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if bad:
        print(f"failed: {','.join(map(str, bad))}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
