"""The macOS half of the process sandbox: a deny profile for sandbox-exec (Seatbelt)."""


def sandbox_exec(python: str, readable: list[str], home: str) -> list[str]:
    """The command prefix under which nothing but `home` can be written, users' files cannot be read, and
    there is no network and no other program. Rules that come later win."""
    rules = [
        "(version 1)",
        "(allow default)",
        "(deny network*)",
        "(deny process-exec)",
        f"(allow process-exec (literal {_quoted(python)}))",
        "(deny signal)",
        "(allow signal (target same-sandbox))",
        "(deny file-write*)",
        f'(allow file-write* (subpath {_quoted(home)}) (literal "/dev/null"))',
        '(deny file-read-data (subpath "/Users") (subpath "/Volumes") (subpath "/private/var/folders"))',
        *(f"(allow file-read-data (subpath {_quoted(path)}))" for path in [home, python, *readable]),
    ]
    return ["/usr/bin/sandbox-exec", "-p", "\n".join(rules)]


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
