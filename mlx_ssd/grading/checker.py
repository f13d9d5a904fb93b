"""The program that runs a problem's checks. Loaded by its text into a sandbox of its own, never imported by mlx_ssd.

`advance(reply)` runs the checks up to the next call of the program under test, or to their end, and says what
happened; the first reply is None. The checks run in a thread, which waits while the call is made elsewhere: what
is expected and what is tested never share a process.

    says      ["call", args, kwargs]   ["passed"]
              ["failed", number, detail]: an assertion, or an exception that came of what the program returned
              ["raised", number, detail]: the program's own exception, which the check did not expect
              ["broken", 0, detail]: the check failed before it called the program
    is told   ["value", value]   ["raise", name of the exception's type, message]
              ["end", why]: the program cannot go on; the answer says which assertion has wanted it

number: of the assertion that failed, or the first behind what failed, among all of the problem, from 0.
"""

import _thread
import builtins
from _queue import SimpleQueue  # `queue` and `threading` cost milliseconds

FILE = "<check>"

said, told = SimpleQueue(), SimpleQueue()


class End(BaseException):
    """Not an Exception, so that a check that expects one lets it pass."""


class Program:
    """What a check calls in place of the program's function."""

    called = False
    raised = None  # the last exception of the program

    def __call__(self, *args, **kwargs):
        self.called = True
        said.put(["call", args, kwargs])
        kind, *reply = told.get()
        if kind == "value":
            return reply[0]
        self.raised = End(*reply) if kind == "end" else exception(*reply)
        raise self.raised


def exception(name, message):
    """Of the type that the program raised, where Python has it; else of one of that name that nothing expects."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        try:
            return kind.__new__(kind, message)
        except TypeError:  # exception groups are made of more
            pass
    return type(name, (Exception,), {})(message)


def run(name, checks):
    program = Program()
    for index, source in enumerate(checks):
        try:
            if "random" in source:  # so that the verdict is the same tomorrow
                import random

                random.seed(0)
            namespace = {"__name__": "check", name: program}
            exec(compile(source, FILE, "exec", dont_inherit=True), namespace)
            check = namespace.get("check", program)
            if check is not program:  # but for a function under test of that name
                check(program)
        except BaseException as error:
            said.put(failure(error, program, checks, index))
            return
    said.put(["passed"])


def failure(error, program, checks, index):
    source = checks[index]
    line = 0
    trace = error.__traceback__
    while trace and not line:  # the first frame in the check: helpers may stand behind it
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == FILE else 0
        trace = trace.tb_next
    text = source.split("\n")[line - 1].strip()[:200] if line else ""
    where = f"line {line} of the check: {text}" if line else "the check"
    if not program.called:
        return ["broken", 0, f"{where} ({type(error).__name__}: {error})"]
    number = sum(max(1, len(assertions(passed))) for passed in checks[:index])
    number += sum(end < line for end in assertions(source))
    if error is program.raised:
        return ["raised", number, where]
    what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return ["failed", number, f"{where} ({what[:200]})" if what else where]


def assertions(source):
    """The last lines of all `assert` statements, in order."""
    import ast  # milliseconds, which a program that passes does not cost
    import warnings

    warnings.simplefilter("ignore")
    nodes = ast.walk(ast.parse(source))
    return sorted(node.end_lineno for node in nodes if isinstance(node, ast.Assert))


def start(name, checks):
    global advance

    def advance(reply):
        if reply is None:
            _thread.start_new_thread(run, (name, checks))
        else:
            told.put(reply)
        return said.get()
