"""Repeats what failed as the very last line of a run, on standard error."""

import sys

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: last_word
type: notification
short_description: repeats what failed as the last line
description:
  - Ansible says why a task failed before its recap, among other lines. This says it again, last and plainly. Of a command that failed it
    says the command's own last line.
"""

# What Ansible says where the reason is in the command's or the module's own words.
SAYS_NOTHING = ("non-zero return code", "MODULE FAILURE", "Module result deserialization failed", "Module failed:", "Error executing command")

# Of one line.
LONGEST = 2000


class CallbackModule(CallbackBase):
    """Remembers the last failure of each host that was not rescued."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "last_word"

    def __init__(self):
        super().__init__()
        self._failures = {}

    def v2_runner_item_on_failed(self, result):
        self._remember(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not ignore_errors and result._result.get("msg") not in ("One or more items failed", "All items completed"):
            self._remember(result)

    def v2_runner_on_unreachable(self, result):
        self._remember(result)

    def v2_playbook_on_stats(self, stats):
        for host in sorted(stats.processed):
            summary = stats.summarize(host)
            if host in self._failures and (summary["failures"] or summary["unreachable"]):
                sys.stdout.flush()
                print(f"\n{host}: {self._failures[host]}", file=sys.stderr)

    def _remember(self, result):
        task, about = result._task.get_name(), result._result
        words = f'the task "{task}" failed; what it said is hidden, as it holds a password'
        if not about.get("_ansible_no_log"):
            words = said(task, about)
        self._failures[result._host.get_name()] = words


def said(task, about):
    """Returns what a failed task says, as one line."""
    message = line(about.get("msg"))
    if message and not message.startswith(SAYS_NOTHING):
        return message
    own = [last_line(about.get(where)) for where in ("stderr", "module_stderr", "stdout", "module_stdout")]
    reason = next(filter(None, own), "") or " ".join(filter(None, [message, line(about.get("cmd"))])) or "it said nothing"
    code = f" (exit code {about['rc']})" if about.get("rc") else ""
    return f'"{task}" failed{code}: {reason}'


def last_line(text):
    """Returns the last line with something in it."""
    lines = [found for found in map(line, str(text or "").splitlines()) if found]
    return lines[-1] if lines else ""


def line(text):
    """Returns a text as one line that a terminal only shows."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text or ""))
    return " ".join(shown.split())[:LONGEST]
