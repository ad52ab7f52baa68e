"""Point clouds from files of triangles, with trimesh (the extra `tfflows[clouds]`)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfflows.datasets.surfaces import check, normalized, surface_points, whole

ENDINGS = (".off", ".ply", ".obj", ".stl")


class PointClouds(NamedTuple):
    """Clouds float32 `[n, n_points, 3]`, labels int64 `[n]`, and what these stand for.

    Attributes:
      clouds: each cloud `normalized`.
      labels: indices into class_names.
      class_names: in alphabetical order.
      files: the files' paths below the folder.
    """

    clouds: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    files: list[str]


def point_clouds(folder: str | Path, n_points: int = 2048, seed: int | None = None) -> PointClouds:
    """A cloud of surface points, uniform by area, for each mesh in a folder and in all folders below.

    Meshes are .off, .ply, .obj and .stl files. Only shapes are read: no textures or materials, nothing that a file
    refers to; links to files are left out. The axes are those of the files.

    Args:
      folder: its folders are the classes, such as chair/ with chair/test/a.off; meshes right in it are of the class
        that has the folder's own name.
      n_points: points of a cloud, >= 2.
      seed: makes the points reproducible; anything `np.random.default_rng` takes.

    Returns:
      `PointClouds`, in alphabetical order of the files.

    Raises:
      ValueError: if there is no folder or no mesh in it; or, with the file's name, for a file that is empty or cannot
        be read, has no faces, no area, or NaN.
      ImportError: without trimesh.
    """
    folder, n_points, rng = Path(folder), whole("n_points", n_points), np.random.default_rng(seed)
    check(folder.is_dir(), "a folder", folder)
    found = [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS]
    paths = sorted(path for path in found if path.is_file() and not path.is_symlink())
    check(paths, f"meshes ({', '.join(ENDINGS)}) in {folder}", "none")
    files = [path.relative_to(folder) for path in paths]
    names = [file.parts[0] if len(file.parts) > 1 else folder.resolve().name for file in files]
    class_names, labels = np.unique(names, return_inverse=True)
    clouds = np.stack([_cloud(path, n_points, rng) for path in paths])
    return PointClouds(clouds, labels.astype(np.int64), class_names.tolist(), [file.as_posix() for file in files])


def _cloud(path, n_points, rng):
    vertices, faces = _mesh(path)
    try:
        return normalized(surface_points(vertices, faces, n_points, rng))
    except ValueError as error:
        raise ValueError(f"{str(error).removesuffix('.')} in {path}.") from error


def _mesh(path):
    """Vertices and faces of all that a file holds."""
    try:
        import trimesh
    except ImportError as error:
        raise ImportError("Expected trimesh to read meshes: pip install 'tfflows[clouds]'") from error
    check(path.stat().st_size > 0, "a mesh", f"an empty file {path}")
    try:
        # From an open file, not by its name: what it refers to cannot be found.
        with path.open("rb") as file:
            kind = path.suffix[1:].lower()
            scene = trimesh.load_scene(file, file_type=kind, process=False, skip_materials=True)
        meshes = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh)]
    except Exception as error:  # readers fail in as many ways as files do
        raise ValueError(f"Expected a mesh; got {path}, which cannot be read: {error}.") from error
    sizes = [len(mesh.vertices) for mesh in meshes]
    check(sum(len(mesh.faces) for mesh in meshes) > 0, "a mesh with faces", f"none in {path}")
    first = np.cumsum(sizes) - sizes
    faces = [np.asarray(mesh.faces) + start for mesh, start in zip(meshes, first, strict=True)]
    return np.concatenate([np.asarray(mesh.vertices) for mesh in meshes]), np.concatenate(faces)
