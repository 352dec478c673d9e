"""`infinito link`: the link by which DVC sees infinito's code in a study."""

from pathlib import Path

from infinito.cli.app import StudyFolder, app


@app.command(epilog="Example: git clone URL && cd REPOSITORY/mixer && infinito link && dvc repro")
def link(study: StudyFolder = Path(".")) -> None:
    """Let a study's link `library` lead to this infinito: in a clone, or where another one has been installed.

    DVC then runs those stages again whose code is another one.
    """
    from infinito import __version__, library

    if not (study / "params.yaml").is_file():
        raise FileNotFoundError(
            f"{study / 'params.yaml'}: no such file; a study is a folder with a params.yaml and a dvc.yaml"
        )
    made = library.link(study)
    print(f"{study / 'library'}: {'leads' if made else 'led already'} to {library.HERE}, infinito {__version__}")
