"""Objects that stand for something of this process."""

from typing import Any, NoReturn


class Single:
    """Can be neither copied nor pickled: two objects would end the same thing, and another process does not have it."""

    #: What to do instead.
    _advice = ""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects can be neither copied nor pickled, because each stands for something that this "
            f"process alone has: {self._advice}"
        )

    def __reduce__(self) -> NoReturn:
        self.__reduce_ex__(0)
