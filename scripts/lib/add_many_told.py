"""Add many tasks, and write down each one as soon as it is said to be on disk; for scripts that kill this.

    python scripts/lib/add_many_told.py URI MANIFEST TOLD.txt '{"engine": "processes", "jobs": 2}'

Prints the counts and times of the summary as JSON.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from registry import TaskRegistry


def main() -> None:
    """Run."""
    uri, manifest, told, options = sys.argv[1:]
    with Path(told).open("a") as file:

        def tell(_progress: object, news: object) -> None:
            for one in news:
                file.write(f"{one.task} {one.status} {one.version}\n")
            file.flush()

        many = TaskRegistry(uri).add_many(manifest, report=tell, **json.loads(options))
    values = asdict(many)
    del values["tasks"]
    print(json.dumps(values | {"errors": [one.error for one in many.tasks if one.error][:3]}))


if __name__ == "__main__":
    main()
