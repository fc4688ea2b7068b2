"""Repeats what failed as the very last line of a run, on standard error."""

import sys

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: last_word
type: notification
short_description: repeats what failed as the last line
description:
  - Ansible says why a task failed before its recap, among other lines. This says it again, last and plainly.
"""


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
        if not ignore_errors and result._result.get("msg") not in (None, "One or more items failed", "All items completed"):
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
        words = result._result.get("msg") or "a task failed"
        if result._result.get("_ansible_no_log"):
            words = f"the task \"{result._task.get_name()}\" failed; what it said is hidden, as it holds a password"
        self._failures[result._host.get_name()] = " ".join(str(words).split())
