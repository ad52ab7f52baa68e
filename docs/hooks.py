"""What the site has that is not a file of docs/: the pictures of the benchmarks' tables."""

from pathlib import Path

from mkdocs.structure.files import File

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def on_files(files, config):
    for picture in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
    return files
