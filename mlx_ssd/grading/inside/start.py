"""python start.py SOCKET_FD CLOCK_FD MARK: the process that programs are forked from, see template.py.

MARK is not read: in the command line of the process, which its forks share, it tells whose they are.
"""

import os
import sys

# For `inside` and `wire`, of which the interpreter knows nothing else of mlx_ssd.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from inside.template import main  # noqa: E402

del sys.path[0]
main(int(sys.argv[1]), int(sys.argv[2]))
