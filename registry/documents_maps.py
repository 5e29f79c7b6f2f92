"""The JSON documents of maps, clusters and profiles, as plain values."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.map_answers import Clustering, LayerProfile, TaskMap


def of_map(shown: "TaskMap") -> dict[str, Any]:
    """A map: where each task lies, in units of the distance; and how far it can be trusted."""
    columns = zip(
        shown.names, shown.versions.tolist(), shown.positions.tolist(), shown.placed.tolist(), strict=True
    )
    asked = zip(shown.queries, shown.query_positions.tolist(), shown.query_nearest, strict=True)
    return {
        "space": shown.space,
        "distance": shown.distance,
        "method": shown.method,
        "seed": shown.seed,
        "stress": shown.stress,
        "trustworthiness": shown.trustworthiness,
        "num_neighbors": shown.num_neighbors,
        "num_measured": shown.num_measured,
        "num_landmarks": shown.num_landmarks,
        "notes": shown.notes,
        "tasks": [
            {"task": name, "version": version, "x": x, "y": y, "placed": placed}
            for name, version, (x, y), placed in columns
        ],
        "queries": [
            {"query": query, "x": x, "y": y, "nearest": _nearest(nearest)} for query, (x, y), nearest in asked
        ],
    }


def of_clustering(found: "Clustering") -> dict[str, Any]:
    """Clusters with their members, and what was compared to choose them."""
    return {
        "space": found.space,
        "distance": found.distance,
        "method": found.method,
        "silhouette": found.silhouette,
        "cut_height": found.cut_height,
        "num_landmarks": found.num_landmarks,
        "notes": found.notes,
        "tried": [{"number": number, "silhouette": value} for number, value in found.tried],
        "clusters": [
            {
                "cluster": cluster.number,
                "label": cluster.label,
                "size": cluster.size,
                "medoid": cluster.medoid,
                "radius": cluster.radius,
                "tags": [{"tag": it.tag, "inside": it.inside, "outside": it.outside} for it in cluster.tags],
                "tasks": cluster.members,
            }
            for cluster in found.clusters
        ],
        "noise": found.noise,
    }


def of_profile(profile: "LayerProfile") -> dict[str, Any]:
    """Two tasks in each layer of the probe, from input to output."""
    return profile.to_json()


def _nearest(nearest: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
    return [{"task": name, "distance": distance} for name, distance in nearest]
