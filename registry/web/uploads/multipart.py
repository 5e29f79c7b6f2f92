"""The file in a form that is being sent, piece by piece; nothing of it is kept."""

from collections.abc import AsyncIterator

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from registry.web.http.faults import RefusedError

MAX_HEADER_BYTES = 4096


async def file_in_form(body: AsyncIterator[bytes], content_type: str, field: str) -> AsyncIterator[bytes]:
    """The content of one field of a form.

    Args:
        body: Of the request.
        content_type: ``multipart/form-data`` with its boundary.
        field: Name of the field; all others are passed over.

    Raises:
        RefusedError: If the form is cut off or damaged, or has no such field, or has it twice.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= 200:
        raise RefusedError(400, "the form has no boundary; send it as multipart/form-data does")
    form = _Form(boundary, field)
    async for piece in body:
        for content in form.feed(piece):
            yield content
    form.check_whole()


class _Form:
    """Follows a form through its parts, and gives what belongs to one of them."""

    def __init__(self, boundary: bytes, field: str) -> None:
        self._field = field.encode()
        self._found: list[bytes] = []
        self._header = [bytearray(), bytearray()]
        self._is_wanted = self._is_done = False
        self._times = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
                "on_header_end": self._header_ends,
                "on_part_data": self._content,
                "on_end": self._ends,
            },
        )

    def feed(self, piece: bytes) -> list[bytes]:
        """Take a piece of the body, and give what in it belongs to the field.

        Raises:
            RefusedError: If the form is damaged.
        """
        self._found = []
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise RefusedError(400, "the form is damaged; send it as multipart/form-data does") from error
        return self._found

    def check_whole(self) -> None:
        """Check that all of it came.

        Raises:
            RefusedError: If it did not.
        """
        if not self._is_done:
            raise RefusedError(400, "the form is cut off; send it again")
        if self._times != 1:
            number = "has no" if self._times == 0 else "has more than one"
            raise RefusedError(400, f"the form {number} field {self._field.decode()!r}; send the zip in it")

    def _part_begins(self) -> None:
        self._is_wanted = False
        self._header = [bytearray(), bytearray()]

    def _add(self, which: int, piece: bytes) -> None:
        """A piece of the name or the value of a header.

        Raises:
            RefusedError: If it never ends.
        """
        self._header[which] += piece
        if len(self._header[which]) > MAX_HEADER_BYTES:
            raise RefusedError(400, "the form is damaged: a header of it is too long")

    def _header_ends(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = [bytearray(), bytearray()]
        if name.lower() == b"content-disposition":
            options = parse_options_header(value)[1]
            self._is_wanted = options.get(b"name") == self._field
            self._times += self._is_wanted

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._is_wanted and self._times == 1:
            self._found.append(data[start:end])

    def _ends(self) -> None:
        self._is_done = True
