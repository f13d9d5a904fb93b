"""What runs inside the sandbox: never imported by mlx_ssd, and never with mlx or numpy.

    start     the script that a fresh interpreter is given
    template  the process that programs are forked from: forks one at a time, watches it, cleans up after it
    linux     namespaces, a root of its own, Landlock, capabilities, by system calls
    program   one untrusted program: its limits, its inputs, its results
"""
