"""``python -m bonaface`` is the ``bonaface`` program."""

from bonaface.cli import main

main()
