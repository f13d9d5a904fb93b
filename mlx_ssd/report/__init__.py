"""One honest report of a run: facts (report.json), then the same facts as Markdown and on the terminal."""
