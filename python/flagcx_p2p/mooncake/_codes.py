"""Failures as numbers, as Mooncake reports them."""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import ParamSpec

from .._errors import P2pError

LOG = logging.getLogger("flagcx_p2p.mooncake")

#: The call failed, or an argument is wrong.
FAILED = -1
#: `transfer_check_status`: the time of the transfer has passed.
TIMED_OUT = -2
#: No region begins at this address.
NOT_REGISTERED = -3
#: The memory, or a part of it, is registered already.
REGISTERED_ALREADY = -7
#: `send_probe`: what was given is no "host:port".
NO_ADDRESS = -101
#: `send_probe`: the peer cannot be reached.
UNREACHABLE = -102

_Arguments = ParamSpec("_Arguments")


class Refused(Exception):
    """A call that fails with this number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def status(call: Callable[_Arguments, None]) -> Callable[_Arguments, int]:
    """The method with a number as its answer: 0 when it returns. The reason of another number goes to the log."""

    @functools.wraps(call)
    def answer(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> int:
        try:
            call(*arguments, **named)
        except (Refused, P2pError, ValueError) as error:
            LOG.error("%s: %s", call.__name__.lstrip("_"), error)
            return error.code if isinstance(error, Refused) else FAILED
        return 0

    # For help(), which shows the wrapped method's otherwise.
    setattr(answer, "__signature__", inspect.signature(call).replace(return_annotation=int))
    return answer
