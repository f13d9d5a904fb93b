"""Several machines work for one run (docs/distributed.md).

Drawing uses no collectives, for MLX's end every process of a group when one is lost: `coordinator` hands out and takes
in (`claims`), `worker` draws, and `sharing` stands in the place of the engine that draws alone. Training does:
`training` gathers the ranks of a ring, `member` is a worker's part in it. `wire` and `listening` are how they speak.
"""
