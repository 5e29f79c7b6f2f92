"""The public class of the library, put together from its parts in ``registry.library``.

registry = TaskRegistry("~/.task2vec")
registry.add_task("flowers", "./flowers", tags=["plants"])
registry.nearest("flowers", k=5)
registry.recommend("./new-photos", max_params=30_000_000)
"""

from typing import Any

from registry import notebooks
from registry.library.advice import Advice
from registry.library.care import Care
from registry.library.experts import Experts
from registry.library.maps import Maps
from registry.library.questions import Questions
from registry.library.results import Results


class TaskRegistry(Experts, Results, Questions, Advice, Maps, Care):
    """Every task a team has met, every expert it owns, and what was measured of them.

    Whatever needs a registry raises ``StorageError`` where there is none.

    Args:
        uri: A folder, or a place such as ``s3://bucket/prefix``; ``$T2V_REGISTRY``, or ``~/.task2vec``, if
            ``None``. It need not exist: the first write creates it, with the starter content that ships with
            this package.
        builtin: Whether starter content is part of lists and answers.
        durability: ``full``, so that what is written survives a power cut, or ``normal``, which is faster and
            survives a kill; ``$T2V_DURABILITY``, or ``full``, if ``None``.
    """


def _text_of(answer: Any) -> str:
    from registry.faces.printing import text_of  # only where an answer is printed

    return text_of(answer)


notebooks.printed_by(_text_of)
