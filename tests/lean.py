"""`python -m tests.lean MODULE ARGUMENTS`: a module of tests in a process that starts as quickly as a stage's."""

import runpy
import sys

from mlx_ssd import models

if __name__ == "__main__":
    del sys.argv[0]
    models.without_pytorch()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
