"""Starts the seeds that were chosen, in one or two processes with servers of their own, and hands out how each has ended."""
import json
import os
import subprocess
import sys
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def pytest_configure(config):
    config.addinivalue_line("markers", "matrix: also run with other versions of PostgreSQL as source and target")


class Seeds:
    def __init__(self, seeds, folder):
        self.folder, self.processes, self.where = folder, [], {}
        jobs = int(os.environ.get("KB_JOBS", "2" if len(seeds) > 10 else "1"))
        for job in range(min(jobs, len(seeds))):
            mine = seeds[job::jobs]
            with open(f"{folder}/{job}.log", "w", encoding="utf-8") as log:
                process = subprocess.Popen([sys.executable, "-m", "tests.workload", "--seeds", ",".join(map(str, mine)), "--report", f"{folder}/{job}"],
                                           cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            self.processes.append(process)
            self.where.update({seed: job for seed in mine})

    def read(self, path):
        try:
            with open(f"{self.folder}/{path}", encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def outcome(self, seed):
        """The seed's line of the report, once it is there."""
        job = self.where[seed]
        while True:
            ended = self.processes[job].poll() is not None
            for line in self.read(job).splitlines():
                found = json.loads(line)
                if found["seed"] == seed:
                    return found
            if ended:
                raise AssertionError(f"the process of seed {seed} ended with {self.processes[job].returncode}:\n{self.read(f'{job}.log')[-8000:]}")
            time.sleep(0.1)

    def end(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)


@pytest.fixture(scope="session")
def seeds(request, tmp_path_factory):
    chosen = [item.callspec.params["seed"] for item in request.session.items if "seed" in getattr(getattr(item, "callspec", None), "params", {})]
    running = Seeds(chosen, tmp_path_factory.mktemp("workload"))
    yield running
    running.end()
