"""What is measured from inside by benches/probe: the cost of recording, and history on disk."""

import json
import shutil
import subprocess

from .load import LoadError

# Set by benches/run.
binary = None


def tracing(plan):
    settings = plan.settings
    return run(plan, "trace", "--rounds", settings.rounds, "--calls", settings.traced_calls)


def history(plan):
    plan.say(f"history of an hour of {plan.settings.history:,} calls")
    return run(plan, "history", "--calls", plan.settings.history // 50, "--hour", plan.settings.history)


def run(plan, what, *arguments):
    directory = plan.directory / what
    directory.mkdir()
    command = [binary, what, "--dir", directory, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600)
    shutil.rmtree(directory)
    if done.returncode != 0:
        raise LoadError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)
