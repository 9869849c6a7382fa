"""Runs one suite: `run.py test_package`. Exits with 77 when all went well but something could not run.

unittest itself calls such a run a success.
"""

import sys
import unittest

SKIPPED = 77  # SKIP_RETURN_CODE in ../python.cmake

# multiprocessing imports this file once more.
if __name__ == "__main__":
    result = unittest.main(module=sys.argv[1], argv=sys.argv[1:], verbosity=2, exit=False).result
    for test, reason in result.skipped:
        print(f"skipped: {test}: {reason}")
    # Python 3.12.1 does not count those that are skipped.
    if result.testsRun + len(result.skipped) == 0 or not result.wasSuccessful():
        sys.exit(1)
    sys.exit(SKIPPED if result.skipped else 0)
