"""Which tasks of the benchmark share images, as their tags say."""

from registry.records import TaskRecord

IMAGES_TAG = "images."
"""Tag of a task of another task's images, before the name of that task."""


def images_of(task: TaskRecord) -> set[str]:
    """Names of the tasks whose images it has; its own, unless it was made of others."""
    return {tag.removeprefix(IMAGES_TAG) for tag in task.tags if tag.startswith(IMAGES_TAG)} or {task.name}
