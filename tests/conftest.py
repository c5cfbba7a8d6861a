"""What all tests share: a terminal's width is a test's own to say; workers that run tests side by side inherit one."""

import os

os.environ.pop("COLUMNS", None)
