"""What a task or a loop shows beside its numbers: figures, texts, tables, files, each of a step.

    RUN/logged.jsonl                          a line each: step, time, name, kind, path, mime, bytes, caption
    RUN/logged/NAME/step-00000400.png         what was shown, by its name and step

In MLflow they are artifacts of the run, at the same paths.
"""
