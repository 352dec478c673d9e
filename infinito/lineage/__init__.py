"""Where a number comes from: what every stage read and wrote, the runs behind a figure, and how to build it again.

All of it is read from what is there anyway: dvc.yaml and dvc.lock (as YAML, without DVC), the run tables, the records
of all stacks and stages, and git. Nothing is re-exported here, so that a stage depends only on the files it uses.
"""
