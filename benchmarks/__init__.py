"""Speed as ratios against other ways to do the same, measured in one process, alternating.

`make bench` makes the environment `.tools/bench` (medtl with its extra `bench`: the peers) and
runs `python -m benchmarks.run` in it. Without a peer its rows say so. One part alone:
`python -m benchmarks.run ingest`.
"""
