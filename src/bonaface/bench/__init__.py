"""How fast detectors are on this machine, by what runs them: `bonaface.bench.measuring.bench`.

Nothing is imported here, since `child` measures how long a start takes.
"""
