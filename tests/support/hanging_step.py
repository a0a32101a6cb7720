"""`edgeseg` with an engine whose third step hangs; it says so on standard error.

python hanging_step.py run BUNDLE --source street ...
"""

import itertools
import sys
import time

from edgeseg.cli.process import run
from edgeseg.runtime.backends.base import Runner

HANG_S = 60.0

if __name__ == "__main__":
    infer, steps = Runner.infer, itertools.count(1)

    def hang(self: Runner) -> None:
        if next(steps) == 3:
            print("hanging", file=sys.stderr, flush=True)
            time.sleep(HANG_S)
        infer(self)

    Runner.infer = hang
    run()
